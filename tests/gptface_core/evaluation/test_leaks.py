"""A test picture that lies in training is reported."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from gptface_core.evaluation import leaks
from gptface_core.shards import open_index, read_shard

from .conftest import Drawn


def plant(shards: Path, out: Path, names: list[str]) -> None:
    """A copy of the shards in which training has these pictures of the test split as well, under another id."""
    shutil.copytree(shards, out)
    pictures = {sample.row_id: sample.jpeg for sample in read_shard(open_index(shards).splits["test"][0])}
    path = out / "train-00000.tar"
    with tarfile.open(path, "a") as tar:
        for number, name in enumerate(names):
            for extension, data in (("jpg", pictures[name]), ("txt", b"planted"), ("json", b"{}")):
                info = tarfile.TarInfo(f"{number:032x}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    index = json.loads((out / "index.json").read_text())
    [shard] = index["splits"]["train"]["shards"]
    shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (out / "index.json").write_text(json.dumps(index))


def test_a_planted_test_picture_is_counted(drawn: Drawn, tmp_path: Path) -> None:
    context = drawn.context(tmp_path)
    before = {figure.metric: figure for figure in leaks.run(context)}
    assert before["same_picture_in_training"].value == 0
    plant(drawn.shards, tmp_path / "shards", context.test.row_ids[:2])
    planted = replace(context, index=open_index(tmp_path / "shards"))
    after = {figure.metric: figure for figure in leaks.run(planted)}
    assert after["same_picture_in_training"].value == pytest.approx(2 / 80)
    look = "look_alike_in_training"
    assert after[look].value >= max(2 / 80, before[look].value) and (tmp_path / "figures" / "leaks.png").is_file()
