"""What a long-lived process holds between two builds, and whether it holds more and more: for `bench.soak`."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What counts as growth: more than this per build, and in the whole run.
# 0.1 MiB: a worker that builds every quarter of an hour for a month would gain 290 MiB, which its machine bears until
# the next restart; what a build loses (its tables, a picture, a module loaded anew) is several times that. Descriptors
# and threads are counted, so any steady gain shows: 0.02 is one more in 50 builds. The gain keeps what came once (a
# library's thread that started late, a MiB of cache) from being taken for growth in a short run.
BOUNDS = {
    "rss_mib": (0.1, 2.0),
    "children_mib": (0.1, 2.0),
    "fds": (0.02, 1.0),
    "sockets": (0.02, 1.0),
    "threads": (0.02, 1.0),
}
_ENDS = 5  # states whose median is the start, or the end
_WARM_UP = 10  # builds, or a third of all where that is more
LEAST = _WARM_UP + 2 * _ENDS  # builds: fewer tell nothing
_TEMPORARY = re.compile(r"\.(tmp|part)$|^\..*work$|^\.probe-|^\.going-|-(journal|wal|shm)$")
_LOCK_S = 1.0
_TAKE_LOCK = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
try:
    con.execute("BEGIN IMMEDIATE")
    con.execute("ROLLBACK")
except sqlite3.OperationalError as error:
    sys.exit(3 if "locked" in str(error) else str(error))
"""


@dataclass(frozen=True)
class State:
    """After one build. Memory is what a process has to itself (USS): `children_mib` that of all worker processes."""

    seconds: float
    rss_mib: float
    children_mib: float
    children: int
    fds: int  # without sockets
    sockets: int
    threads: int
    locked: bool
    leftovers: list[str]
    files: int  # below the root
    lake_files: int


def observe(root: Path, temporary: Path, seconds: float) -> State:
    """The state of this process, its children (multiprocessing's) and its files. Linux alone: it reads /proc."""
    import psutil

    me = psutil.Process()
    targets = [_target(entry) for entry in Path("/proc/self/fd").iterdir()]
    sockets = sum(target.startswith("socket:") for target in targets)
    children = me.children(recursive=True)
    files = [path for path in root.rglob("*") if path.is_file()]
    return State(
        seconds=round(seconds, 2),
        rss_mib=_mib(me),
        children_mib=round(sum(map(_mib, children)), 2),
        children=len(children),
        fds=len(targets) - sockets,
        sockets=sockets,
        threads=me.num_threads(),
        locked=is_locked(root / "lake" / "catalog.sqlite"),
        leftovers=sorted(leftovers(root, temporary)),
        files=len(files),
        lake_files=sum(path.is_relative_to(root / "lake") for path in files),
    )


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # that of the listing
        return ""


def _mib(process: Any) -> float:
    return round(process.memory_full_info().uss / (1 << 20), 2)


def is_locked(catalogue: Path) -> bool:
    """Whether another process has to wait over a second to write. Asked from one: none sees its own locks."""
    command = [sys.executable, "-I", "-S", "-c", _TAKE_LOCK, str(catalogue), str(_LOCK_S)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{catalogue} cannot be opened: {done.stderr.strip()}")
    return done.returncode == 3


def leftovers(root: Path, temporary: Path) -> list[str]:
    """Files with a temporary name below the root, and everything in the folder for temporary files."""
    below = [path for path in root.rglob("*") if _TEMPORARY.search(path.name)]
    in_tmp = [path for path in (root / "lake" / "tmp").rglob("*") if path.is_file()]
    return [str(path) for path in {*below, *in_tmp, *temporary.iterdir()}]


@dataclass(frozen=True)
class Growth:
    """Medians of the first and last five states after the warm-up, and the slope between all of them."""

    start: float
    end: float
    slope: float

    def exceeds(self, slope: float, gain: float) -> bool:
        return self.slope > slope and self.end - self.start > gain


def settled(states: Sequence[State]) -> Sequence[State]:
    """Without the first builds: imports, caches and allocators fill up then, whatever comes after."""
    return states[max(_WARM_UP, len(states) // 3) :]


def growth(values: Sequence[float]) -> Growth:
    """The slope per build is Theil and Sen's, the median of those between all pairs (Sen 1968): one build that holds
    more, or a step up to a plateau that few pairs span, does not move it as a least-squares line is moved.
    """
    from scipy.stats import theilslopes

    slope = float(theilslopes(values).slope)
    return Growth(statistics.median(values[:_ENDS]), statistics.median(values[-_ENDS:]), slope)


def judge(states: Sequence[State]) -> dict[str, Any]:
    """The figures of the benchmark's last line; `grew` names what is over its bound, `ok` that nothing is amiss."""
    after = settled(states)
    found = {name: growth([float(getattr(state, name)) for state in after]) for name in BOUNDS}
    grew = [name for name, bounds in BOUNDS.items() if found[name].exceeds(*bounds)]
    told: dict[str, Any] = {}
    for name, each in found.items():
        unit = "_mib" if name.endswith("_mib") else ""
        told |= {f"{name}_start": round(each.start, 1), f"{name}_end": round(each.end, 1)}
        told[f"{name.removesuffix('_mib')}_slope{unit}_per_build"] = round(each.slope, 4)
    locks, left = sum(state.locked for state in states), sorted({name for s in states for name in s.leftovers})
    return {
        **told,
        "locks_held": locks,
        "leftovers": len(left),
        "files_start": after[0].files,
        "files_end": after[-1].files,
        "lake_files_start": after[0].lake_files,
        "lake_files_end": after[-1].lake_files,
        "grew": grew,
        "ok": not grew and not locks and not left,
    }
