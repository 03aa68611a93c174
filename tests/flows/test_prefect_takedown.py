"""The takedown as a deployment on a real Prefect server: nothing of the picture is left, nor in Prefect's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

import warehouse
from tests.flows.takedown_root import chunks_of, crop_of, residue
from tests.flows.up_process import start_up

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_deployed_takedown_leaves_nothing_of_a_picture(tmp_path: Path) -> None:
    up = start_up(tmp_path)
    try:
        build = ("deployment", "run", "build-dataset/local", "--param", "detector=cascade", "--watch")
        done = up.prefect(*build, "--param", "source=sample:60")
        assert done.returncode == 0, done.stdout + done.stderr
        with warehouse.connect(up.root) as con:
            found = con.execute("""
                SELECT row_id, image_id, image_url, raw_shard, raw_offset, raw_bytes FROM corpus
                WHERE cluster_id IN (SELECT cluster_id FROM decisions GROUP BY ALL HAVING count(*) = 1)
                ORDER BY row_id LIMIT 1""").fetchone()
        assert found is not None
        row_id, image_id, url, shard, offset, size = found
        picture = (up.root / shard).read_bytes()[offset : offset + size]
        needles = [url.encode(), *chunks_of(picture), *chunks_of(crop_of(up.root, row_id)[1])]
        seen = {name.split("/")[0] for name in residue(up.root, needles)}
        assert seen >= {"lake", "raw", "shards"}, "the needles must be found beforehand"
        # By its hash: the parameters of a run stay with Prefect, and an address would stay with them.
        done = up.prefect("deployment", "run", "takedown/local", "--param", f'sha256s=["{image_id}"]', "--watch")
        assert done.returncode == 0, done.stdout + done.stderr
        with warehouse.connect(up.root) as con:
            left = con.execute("SELECT count(*) FROM history.pairs WHERE row_id = ?", [row_id]).fetchone()
            audit = con.execute("SELECT kind, raw_pictures FROM takedowns").fetchall()
        assert (left, audit) == ((0,), [("sha256", 1)])
    finally:
        up.stop()
    assert residue(up.root, needles) == {}
