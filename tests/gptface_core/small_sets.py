"""Tiny sets in the official layouts of the real ones: drawn noise, no person."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

LFW_COLUMNS = (
    *("5 o' Clock Shadow", "Black Hair", "Blond Hair", "Eyeglasses", "Female", "Frowning", "Goatee", "Male"),
    *("Mouth Closed", "Mouth Wide Open", "No Beard", "No Eyewear", "Senior", "Smiling", "Sunglasses", "Youth"),
)


def picture(seed: int, size_px: int = 48, grey: bool = False) -> bytes:
    """A JPEG of low-frequency noise: pictures of two seeds look different to a perceptual hash."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    image = small.resize((size_px, size_px), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    (image.convert("L") if grey else image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.StringIO(newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fer2013(folder: Path, counts: dict[str, int], twins: int = 0) -> Path:
    """`counts` pictures of each official split, classes in turn; `twins` test pictures are training pictures."""
    classes = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    folder.mkdir(parents=True)
    seed = 0
    for archive, splits in (
        ("fer2013_training.zip", ("Training",)),
        ("fer2013_public_private_test.zip", ("PublicTest", "PrivateTest")),
    ):
        with zipfile.ZipFile(folder / archive, "w") as out:
            for split in splits:
                for number in range(counts[split]):
                    copied = split == "PrivateTest" and number < twins
                    data = picture(number if copied else seed, grey=True)
                    out.writestr(f"{split}/{classes[number % 7]}/{split}_{number}.jpg", data)
                    seed += 1
    return folder


def write_lfw(folder: Path, people: dict[str, int]) -> Path:
    """So many pictures of each person; odd seeds have the first column of every opposed pair, even ones the other."""
    images, table = [], []
    (folder).mkdir(parents=True)
    with zipfile.ZipFile(folder / "lfw-deepfunneled.zip", "w") as out:
        seed = 1000
        for person, count in people.items():
            for number in range(1, count + 1):
                name = person.replace(" ", "_")
                file = f"{name}/{name}_{number:04d}.jpg"
                out.writestr(f"lfw-deepfunneled/{file}", picture(seed, 250))
                gender = "F" if seed % 2 else "M"
                images.append({"file": file, "person": person, "imagenum": str(number), "gender": gender})
                first = ("Male", "Smiling", "Eyeglasses", "Mouth Wide Open", "Senior", "Blond Hair", "No Beard")
                other = ("Female", "Frowning", "No Eyewear", "Mouth Closed", "Youth", "Black Hair", "Goatee")
                present = first if seed % 2 else other
                table.append({"file": file, **{column: str(int(column in present)) for column in LFW_COLUMNS}})
                seed += 1
    write_csv(folder / "lfw_images.csv", images)
    write_csv(folder / "lfw_attributes_binary74.csv.gz", table[:-1])  # the last picture has no row
    return folder


def write_congress(folder: Path, people: list[str]) -> Path:
    rows = []
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(people):
        file = f"images/A{number:06d}.jpg"
        (folder / file).write_bytes(picture(5000 + number, 200))
        first, _, last = name.partition(" ")
        rows.append(
            {
                "bioguide": f"A{number:06d}",
                "file": file,
                "full_name": name,
                "first_name": first,
                "last_name": last,
                "gender": "MF"[number % 2],
                "birth_year": "1960",
                "chamber": "sen",
                "state": "OH",
                "party": "Independent",
                "wikipedia": name,
                "age_at_photo": "64" if number else "",
            }
        )
    write_csv(folder / "legislators.csv", rows)
    return folder
