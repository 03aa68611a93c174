"""CelebA, LFWA, RAF-DB and AffectNet in tiny folders of their official layouts: those who have them can rely on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gptface_core.datasets import EXPRESSION, align, load_faces, load_pictures
from gptface_core.datasets.affectnet import load_affectnet
from gptface_core.datasets.celeba import COUNTS, MD5, load_celeba
from gptface_core.datasets.lfwa import load_lfwa
from gptface_core.datasets.own import load_shards
from gptface_core.datasets.rafdb import load_rafdb
from gptface_core.errors import InputError
from tests.gptface_core.micro import write_corpus
from tests.gptface_core.small_sets import picture, write_csv

FILES = [f"{number:06d}.jpg" for number in range(1, 7)]


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    folder = tmp_path / "celeba"
    (folder / "Img" / "img_align_celeba").mkdir(parents=True)
    for part in ("Anno", "Eval"):
        (folder / part).mkdir()
    for number, file in enumerate(FILES):
        (folder / "Img" / "img_align_celeba" / file).write_bytes(picture(number, 218))
    rows = [f"{file}  {' '.join(['1', '-1', '-1'] if n % 2 else ['-1', '1', '1'])}" for n, file in enumerate(FILES)]
    (folder / "Anno" / "list_attr_celeba.txt").write_text("\n".join(["6", "Smiling Male Young ", *rows]) + "\n")
    names = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    marks = [f"{file} 69 109 106 113 77 142 73 152 108 154" for file in FILES]
    (folder / "Anno" / "list_landmarks_align_celeba.txt").write_text("\n".join(["6", names, *marks]) + "\n")
    splits = [f"{file} {split}" for file, split in zip(FILES, "000112", strict=True)]
    (folder / "Eval" / "list_eval_partition.txt").write_text("\n".join(splits) + "\n")
    return folder


def test_celeba(celeba: Path) -> None:
    faces = load_celeba(celeba, whole=False)
    assert faces.counts() == {"train": 3, "val": 2, "test": 1} and faces.attributes == ("Smiling", "Male", "Young")
    assert faces.attribute_table()[:2].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert faces.items[1].groups == {"gender": "female", "age": "senior"}
    framed = align(faces, None)  # its own points: no detector is needed
    assert load_pictures(framed.part("train"), 64).shape == (3, 64, 64, 3)


def test_celeba_is_checked_against_its_published_sums_and_counts(celeba: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"list_attr_celeba.txt is damaged or another version \(md5 "):
        load_celeba(celeba)
    for name in list(MD5):
        monkeypatch.delitem(MD5, name)
    with pytest.raises(InputError, match="train has 3 of 162,770, val has 2 of 19,867, test has 1 of 19,962"):
        load_celeba(celeba)
    assert COUNTS == {"train": 162_770, "val": 19_867, "test": 19_962}


def test_celeba_cut_short_or_without_a_table(celeba: Path) -> None:
    table = celeba / "Anno" / "list_attr_celeba.txt"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match="cut short or no table of CelebA"):
        load_celeba(celeba, whole=False)
    table.unlink()
    with pytest.raises(InputError, match=r"no list_attr_celeba.txt of CelebA in .*mmlab"):
        load_celeba(celeba, whole=False)


def test_lfwa(tmp_path: Path) -> None:
    from scipy.io import savemat

    folder = tmp_path / "lfwa"
    files = [f"Person_{letter}\\Person_{letter}_000{n}.jpg" for letter in "ABCDEF" for n in (1, 2)]
    for number, file in enumerate(files):
        path = folder / "lfw" / file.replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, 250))
    cells = np.array(files, dtype=object)[:, None]
    names = np.array(["Male", "Smiling", "Young"], dtype=object)[:, None]
    labels = np.tile([[1, 0, 0], [0, 1, 1]], (6, 1))
    savemat(folder / "lfw_att_40.mat", {"AttrName": names, "label": labels, "name": cells})
    savemat(folder / "indices_train_test.mat", {"indices_img_test": np.arange(9, 13)[:, None]})
    faces = load_lfwa(folder, whole=False)
    assert faces.counts()["test"] == 4 and {i.person for i in faces.part("test").items} == {"Person E", "Person F"}
    assert faces.attribute_table()[:2].tolist() == [[1, 0, 0], [0, 1, 1]]
    assert faces.items[0].groups == {"gender": "male", "age": "senior"}
    assert len(faces.read(faces.items[3])) > 100
    with pytest.raises(InputError, match="all has 12 of 13,143, test has 4 of 6,880"):
        load_lfwa(folder)


def test_rafdb(tmp_path: Path) -> None:
    base = tmp_path / "rafdb" / "basic"
    names = [f"train_{n:05d}" for n in range(1, 41)] + [f"test_{n:04d}" for n in range(1, 9)]
    for number, name in enumerate(names):
        path = base / "Image" / "aligned" / f"{name}_aligned.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, 100))
    (base / "EmoLabel").mkdir()
    lines = [f"{name}.jpg {1 + number % 7}" for number, name in enumerate(names)]
    (base / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    (base / "Annotation" / "manual").mkdir(parents=True)
    points = "\n".join("10.0\t20.0" for _ in range(5))
    (base / "Annotation" / "manual" / "train_00001_manu_attri.txt").write_text(f"{points}\n1\n0\n3\n")
    faces = load_rafdb(tmp_path / "rafdb", whole=False)
    counts = faces.counts()
    assert counts["train"] + counts["val"] == 40 and 0 < counts["val"] < 12 and counts["test"] == 8
    assert [item.labels[EXPRESSION] for item in faces.items[:3]] == ["surprise", "fear", "disgust"]
    assert faces.items[0].groups == {"gender": "female", "age": "40-69"} and faces.items[1].groups == {}
    assert load_pictures(faces.part("test"), 32).shape == (8, 32, 32, 3)
    with pytest.raises(InputError, match="train and val has 40 of 12,271, test has 8 of 3,068"):
        load_faces("rafdb", tmp_path)


def test_affectnet_in_folders(tmp_path: Path) -> None:
    for part, count in (("train_set", 60), ("val_set", 9)):
        for name in ("images", "annotations"):
            (tmp_path / "affectnet" / part / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "affectnet" / part / "images" / f"{number}.jpg").write_bytes(picture(number, 224))
            # As published: a text array that holds the number; 7 is contempt.
            np.save(tmp_path / "affectnet" / part / "annotations" / f"{number}_exp.npy", np.array(str(number % 8)))
    faces = load_affectnet(tmp_path / "affectnet", whole=False)
    counts = faces.counts()
    assert counts["train"] + counts["val"] == 53 and counts["test"] == 8, "contempt is no class of seven"
    assert faces.items[1].id == "train_set/images/1.jpg" and faces.items[1].labels[EXPRESSION] == "happy"
    assert faces.picture(faces.items[0], 64).shape == (64, 64, 3)
    with pytest.raises(InputError, match="train and val has 53 of 283,901, test has 8 of 3,500"):
        load_faces("affectnet", tmp_path)


def test_affectnet_in_tables(tmp_path: Path) -> None:
    columns = ("training.csv", 5), ("validation.csv", 2)
    for name, count in columns:
        rows = [{"subDirectory_filePath": f"{name[:2]}/{n}.jpg", "expression": str(n + 4)} for n in range(count)]
        write_csv(tmp_path / "Manually_Annotated_file_lists" / name, rows)
    faces = load_affectnet(tmp_path, whole=False)
    assert [item.labels[EXPRESSION] for item in faces.items] == ["fear", "disgust", "angry", "fear", "disgust"]
    assert not faces.framed, "whole pictures: to be aligned first"


def test_any_split_of_our_own_shards(tmp_path: Path) -> None:
    shards, labels = write_corpus(tmp_path)
    faces = load_shards(shards, labels, ("smiling", "beard"))
    assert faces.counts() == {"train": 24, "val": 6, "test": 8}
    item = faces.part("test").items[0]
    assert ("red" in item.facts["caption"]) is item.labels["smiling"] and item.labels["beard"] is not item.labels[
        "smiling"
    ]
    assert load_pictures(faces.part("test"), 32).shape == (8, 32, 32, 3)
    with pytest.raises(InputError, match=r"cannot be read|lack the columns"):
        load_shards(shards, labels, ("moustache",))


def test_pictures_are_kept_for_the_same_files(tmp_path: Path) -> None:
    shards, _ = write_corpus(tmp_path / "corpus")
    faces = load_shards(shards)
    first = load_pictures(faces, 32, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    before = kept.stat().st_mtime_ns
    assert np.array_equal(load_pictures(faces, 32, tmp_path / "kept"), first) and kept.stat().st_mtime_ns == before
    assert np.array_equal(load_pictures(faces.rows([3, 1]), 32, tmp_path / "kept"), first[[3, 1]])
