"""Finished models as rows and folders, without any training."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from flows.steps.layout import Layout
from warehouse.register import register

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def add_model(root: Path, name: str, release: int, day: int = 0, parent: str | None = None) -> Path:
    """A finished model of the lake: its folder with weights, checkpoints and tokens, and its row."""
    folder = Layout(root).models / name
    for part in ("checkpoints", "tokens"):
        (folder / part).mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"release": release, "seed": 0, "preset": "micro", "parent": ""}))
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    (folder / "checkpoints" / "main.safetensors").write_bytes(b"c" * 500)
    (folder / "checkpoints" / "release").write_text(str(release))
    (folder / "tokens" / "x.arrow").write_bytes(b"t" * 200)
    row = {"model": name, "kind": "gptface", "preset": "micro", "path": f"models/{name}", "release": release}
    register(root, "models", row | {"parent": parent, "run_id": "r", "created_at": START + dt.timedelta(days=day)})
    return folder
