"""What the table of runs tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.steps.config import TrainConfig
from flows.steps.layout import Layout
from flows.steps.runs import is_first_build, recorded
from warehouse import lake


def test_the_first_build_that_ends_with_a_release_is_told_from_later_and_broken_ones(tmp_path: Path) -> None:
    """A build that was killed between its release and its shards does not count: the next one has the news."""
    lake.create(tmp_path)
    layout, config = Layout(tmp_path), TrainConfig(str(tmp_path))
    with pytest.raises(OSError, match="disk"), recorded(layout, "build", config):
        raise OSError("disk full")
    assert not is_first_build(layout, 1)
    for release, first in ((1, True), (1, False), (2, True)):
        with recorded(layout, "build", config) as run:
            run.result = {"release": release}
        assert is_first_build(layout, release) is first
    with recorded(layout, "train", config) as run:
        run.result = {"release": 2}
    assert is_first_build(layout, 2)
