"""What loaders share: is the data there, is it whole, and what to do where it is not. Nothing is ever downloaded."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

from gptface_core.errors import InputError


def require(path: Path, data_set: str, site: str) -> Path:
    """`path`, or one clear line: what is missing, whose site has it, and where it belongs."""
    if not path.exists():
        raise InputError(
            f"no {path.name} of {data_set} in {path.parent}: get the data set from {site} (you agree to its terms "
            f"there) and unpack it so that {path} exists"
        )
    return path


def check_md5(path: Path, known: Mapping[str, str], site: str) -> None:
    """Raises InputError where the file is not the one whose MD5 its publishers give; others are not checked."""
    wanted = known.get(path.name)
    if wanted is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != wanted:
        raise InputError(f"{path} is damaged or another version (md5 {found}, should be {wanted}): get it from {site}")


def check_counts(found: Mapping[str, int], official: Mapping[str, int], data_set: str, folder: Path) -> None:
    """Raises InputError where a split has another number of pictures than the official one."""
    wrong = [f"{split} has {found.get(split, 0):,} of {n:,}" for split, n in official.items() if found.get(split) != n]
    if wrong:
        raise InputError(f"{data_set} in {folder} is not the official one: {', '.join(wrong)} pictures; unpack it anew")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file, gzipped or not. Raises InputError where it cannot be read."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
                return list(csv.DictReader(stream))
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
