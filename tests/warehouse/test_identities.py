"""People by embeddings: one side each and at most so many pictures, and both stand when the embeddings are gone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from literal_crawls import Shot, write_crawl

from warehouse import connect
from warehouse.errors import InputError
from warehouse.identities import read_vectors
from warehouse.parameters import RuleParameters
from warehouse.publish import Release, publish
from warehouse.schema import EMBEDDINGS
from warehouse.whatif import what_if

pytestmark = pytest.mark.e2e  # several trainings or releases

NOW = dt.datetime.now(dt.UTC)
EVEN = RuleParameters(val_share=0.3, test_share=0.3)  # so that two clusters often differ
CAPPED = RuleParameters(val_share=0.3, test_share=0.3, max_per_identity=2)
PEOPLE, PICTURES = 8, 4
ALBUM = {f"person{p}-{n}": p for p in range(PEOPLE) for n in range(PICTURES)}


def vector(person: int, turn: float = 0.0) -> list[float]:
    """A unit vector per person, at right angles to those of others; `turn` leads towards the next person's."""
    place = np.eye(PEOPLE + 1)
    mixed = np.cos(turn) * place[person] + np.sin(turn) * place[person + 1]
    return [float(value) for value in mixed]


def write_vectors(crawl: Path, vectors: Mapping[str, Sequence[float]], days: float = 30, model: str = "m") -> Path:
    """The embeddings of a crawl's part: of the largest faces by name of the shot, and of a bystander in each."""
    row = {"model": model, "expires_at": NOW + dt.timedelta(days=days)}
    rows = []
    for name, values in vectors.items():
        image_id = Shot(name).image_id
        rows.append(row | {"image_id": image_id, "face_index": 0, "embedding": list(values)})
        rows.append(row | {"image_id": image_id, "face_index": 1, "embedding": [1.0] + [0.0] * PEOPLE})
    path = crawl / "faces/00000.embeddings.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=EMBEDDINGS), path)
    return path


def decided(root: Path) -> dict[str, tuple[str, str]]:
    """Reason and split by name of the shot."""
    with connect(root) as con:
        rows = con.execute("SELECT image_url, d.reason, d.split FROM decisions d JOIN pairs USING (row_id)").fetchall()
    return {Path(url).stem: (reason, split) for url, reason, split in rows}


def sides(found: Mapping[str, tuple[str, str]]) -> list[set[str]]:
    """The splits in which each person of the album lies."""
    return [{found[name][1] for name, who in ALBUM.items() if who == person} for person in range(PEOPLE)]


def album(root: Path, rules: RuleParameters = EVEN, days: float = 30) -> Release:
    crawl = write_crawl(root / "raw/test/g000", [Shot(name) for name in ALBUM])
    write_vectors(crawl, {name: vector(person) for name, person in ALBUM.items()}, days)
    return publish(root, [crawl], rules)


def test_a_person_lies_on_one_side_while_embeddings_are_fresh(tmp_path: Path) -> None:
    album(tmp_path / "expired", days=-1)
    assert any(len(splits) > 1 for splits in sides(decided(tmp_path / "expired")))
    release = album(tmp_path / "fresh")
    found = decided(tmp_path / "fresh")
    assert [len(splits) for splits in sides(found)] == [1] * PEOPLE
    assert len(set.union(*sides(found))) == 3  # and not all on the same
    assert release.kept == len(ALBUM)
    with connect(tmp_path / "fresh") as con:  # who is who is told nowhere: clusters are those of the pictures
        assert con.execute("SELECT count(DISTINCT cluster_id) FROM corpus").fetchone() == (len(ALBUM),)


def test_cap_and_sides_stand_when_the_embeddings_are_gone(tmp_path: Path) -> None:
    first = album(tmp_path, CAPPED)
    assert (first.kept, first.reasons["identity_cap"]) == (2 * PEOPLE, 2 * PEOPLE)
    before = decided(tmp_path)
    assert [len(splits) for splits in sides(before)] == [1] * PEOPLE
    (tmp_path / "raw/test/g000/faces/00000.embeddings.parquet").unlink()
    again = publish(tmp_path, [tmp_path / "raw/test/g000"], CAPPED)
    assert not again.created and decided(tmp_path) == before
    # A larger copy of a picture takes its place, and its side: not the one that its own hash would give.
    kept = {name for name, (reason, _) in before.items() if reason == "kept"}
    copies = [Shot(f"copy-of-{name}", phash=Shot(name).hash64, side_px=400) for name in sorted(kept)]
    publish(tmp_path, [write_crawl(tmp_path / "raw/test/g001", copies)], CAPPED)
    after = decided(tmp_path)
    assert {name: after[f"copy-of-{name}"] for name in kept} == {name: before[name] for name in kept}
    # Without the cap everybody is back, on the side of their person.
    publish(tmp_path, [], EVEN)
    assert {name: decided(tmp_path)[name][1] for name in ALBUM} == {name: before[name][1] for name in ALBUM}
    assert "identity_cap" not in {reason for reason, _ in decided(tmp_path).values()}


def test_old_rows_stay_where_two_persons_turn_out_to_be_one(tmp_path: Path) -> None:
    names = [f"picture{n}" for n in range(PEOPLE)]
    crawl = write_crawl(tmp_path / "raw/test/g000", [Shot(name) for name in names])
    write_vectors(crawl, {name: vector(n) for n, name in enumerate(names)})
    publish(tmp_path, [crawl], EVEN)
    before = decided(tmp_path)
    one, other = next((n, n + 1) for n in range(PEOPLE - 1) if before[names[n]][1] != before[names[n + 1]][1])
    # Right between the two, a few times: cosines of 0.71 to both, and a mean over the threshold with all of them.
    bridges = [f"bridge{n}" for n in range(6)]
    later = write_crawl(tmp_path / "raw/test/g001", [Shot(name) for name in bridges])
    write_vectors(later, dict.fromkeys(bridges, vector(one, np.pi / 4)))
    publish(tmp_path, [later], EVEN)
    after = decided(tmp_path)
    assert {name: after[name] for name in names} == before
    leader = min((Shot(names[n]).image_id, names[n]) for n in (one, other))[1]
    assert {after[name] for name in bridges} == {before[leader]}
    # With other shares everything is cut anew, and the person comes together.
    publish(tmp_path, [], RuleParameters(val_share=0.2, test_share=0.5))
    recut = decided(tmp_path)
    assert len({recut[name][1] for name in (*bridges, names[one], names[other])}) == 1


def test_what_if_tells_the_cost_of_a_cap(tmp_path: Path) -> None:
    album(tmp_path)
    answer = what_if(tmp_path, EVEN, CAPPED)
    assert (answer.total.lost, answer.reasons) == (2 * PEOPLE, {"identity_cap": 2 * PEOPLE})


def test_models_are_never_compared_and_damage_is_named(tmp_path: Path) -> None:
    crawl = tmp_path / "raw/test/g000"
    (crawl / "faces").mkdir(parents=True)
    path = write_vectors(crawl, {"a": [1.0, 0.0], "b": [0.0, 1.0]}, model="one")
    path.rename(crawl / "faces/00001.embeddings.parquet")
    write_vectors(crawl, {"c": [1.0, 0.0, 0.0]}, model="two")
    found = read_vectors(tmp_path).by_model
    assert {model: (len(ids), matrix.shape) for model, (ids, matrix) in found.items()} == {
        "one": (2, (2, 2)),
        "two": (1, (1, 3)),
    }
    assert read_vectors(tmp_path, now=NOW + dt.timedelta(days=31)).by_model == {}
    write_vectors(crawl, {"c": [1.0, 0.0, 0.0]}, model="one")
    with pytest.raises(InputError, match="by one have several widths"):
        read_vectors(tmp_path)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"00000\.embeddings\.parquet cannot be read"):
        read_vectors(tmp_path)
