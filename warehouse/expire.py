"""The lake's own (DuckLake's) snapshots: one per transaction, of no use once nobody reads an old one any more.

Releases are rows and stay, whatever ends here: `connect(root, at=N)` needs the newest snapshot alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warehouse import lake, tables

# Files that no snapshot needs any more stay for a day: who is reading an older one is not disturbed.
_GRACE = "INTERVAL 1 DAY"


@dataclass(frozen=True)
class Expiry:
    """Snapshots that end, and files (of snapshots that ended before) that go, with their bytes."""

    snapshots: int
    files: int
    bytes: int


def expire(root: Path | str, days: int, dry_run: bool) -> Expiry:
    """End snapshots older than `days`, and delete files that no snapshot has needed for a day; the newest stays.

    Files that no snapshot ever knew go as well: their writer was killed, or its disk was full.
    """
    return lake.patiently(lambda: _expire(Path(root), days, dry_run), 60)


def _expire(root: Path, days: int, dry_run: bool) -> Expiry:
    name, dry = lake.quoted(tables.LAKE), f"dry_run => {str(dry_run).lower()}"
    with lake.writing(root) as con:
        older = f"older_than => now() - INTERVAL {int(days)} DAY"
        ended = con.execute(f"CALL ducklake_expire_snapshots({name}, {older}, {dry})").fetchall()
        old = f"CALL ducklake_cleanup_old_files({name}, older_than => now() - {_GRACE}"
        # Nobody else writes now, so no file is on its way into the catalogue.
        unknown = f"CALL ducklake_delete_orphaned_files({name}, cleanup_all => true"
        calls = (old, unknown)
        files = [Path(row[0]) for call in calls for row in con.execute(f"{call}, dry_run => true)").fetchall()]
        size = sum(file.stat().st_size for file in files if file.is_file())
        if files and not dry_run:
            for call in calls:
                con.execute(f"{call})")
    return Expiry(len(ended), len(files), size)
