"""What keeps a working folder and its object store alike (see `warehouse.store`).

Whoever writes holds the root's lock, which for a root on a store is one of its PostgreSQL database as well, so that
one machine writes at a time. `session` is what that lock does beside locking: at its beginning the folder becomes what
the store is; while it lasts, what is new goes to the store every minute, before every transaction of the lake (what
the lake tells of lies on the store first) and at the end; what was deleted here is deleted there. Files come first,
then the small JSON files that say that they are whole, in the order in which they were written.

The object `.generation` is new with the beginning and the end of each session. A folder that finds another one than
it knows is out of date: what it has beyond the store was never finished, and goes. A writer that finds another one in
mid-session has lost its lock to somebody else, and ends. Working folders are caches: they may be deleted whenever
nothing runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from warehouse.objects import Store
from warehouse.store import store_errors, store_of
from warehouse.workfolder import Stat, State, drop_half_written, files_of, read_state, remove, stat_of, write_state

logger = logging.getLogger(__name__)

EVERY_S = 60.0
_GENERATION = ".generation"
_SESSION = ".store.session"  # locked, with the process in it, while one is under way
_AT_ONCE = 8


def fetch(root: Path, *patterns: str) -> None:
    """Bring the working folder up to date for a reader: what is out of date goes, what fits `patterns` (paths below the
    root, `shards/*` is all in there) is there afterwards.

    Nothing to do for a root on disk, and while a process of this machine writes here. Raises as `store_errors` says.
    """
    address = store_of(root)
    if address is None:
        return
    with _one_at_a_time(root):
        if not _is_locked(root):
            with store_errors(address):
                _bring(root, Store(address), patterns)


def flush(root: Path) -> None:
    """Put what is new here on the store, where this process holds the root. Raises OSError where it lost the lock."""
    address = store_of(root)
    if address is not None and is_mine(root):
        _push(root, address)


def put_if_unchanged(root: Path, names: Iterable[str]) -> bool:
    """Put files (paths below the root) on the store, unless somebody has written there since this machine last looked;
    whether they are there. The caller holds the store's lock."""
    address = store_of(root)
    if address is None:
        return True
    with _one_at_a_time(root), store_errors(address):
        store, state = Store(address), read_state(root)
        if store.read(_GENERATION) != state.generation:
            return False
        for name in names:
            _put(root, store, state, name)
        write_state(root, state)
    return True


@contextlib.contextmanager
def session(root: Path) -> Iterator[None]:
    """Keep the store like the folder while the block runs; the caller holds the root's locks. No-op for other roots."""
    address = store_of(root)
    if address is None:
        yield
        return
    with (root / _SESSION).open("a+") as held:
        with _one_at_a_time(root), store_errors(address):
            fcntl.flock(held, fcntl.LOCK_EX)  # free: the caller holds the root
            held.truncate(0)
            held.write(str(os.getpid()))
            held.flush()
            store = Store(address)
            _bring(root, store, ("*",))
            _begin_generation(root, store, read_state(root))
        with _pushing_meanwhile(root, address):
            try:
                yield
            except Exception:
                with _told(address):  # its own error is the one to show
                    _push(root, address)
                raise
        _push(root, address, is_last=True)


def claim(root: Path, name: str, text: str) -> str:
    """Write a small file of the store once and for all: `text`, or what another machine has written there before."""
    address = store_of(root)
    if address is None:
        return text
    with store_errors(address):
        store = Store(address)
        try:
            store.write(name, text, only_new=True)
        except FileExistsError:
            return store.read(name)
    return text


def _bring(root: Path, store: Store, patterns: tuple[str, ...]) -> None:
    """Make the folder what the store is, but for what this machine was the last to write and has not put there yet."""
    there, state = store.files(), read_state(root)
    generation = store.read(_GENERATION)
    ours = generation == state.generation
    if not ours:
        drop_half_written(root)
    here = files_of(root)
    for name, stat in list(here.items()):
        alike = not state.changed(name, stat) and name in there and there[name]["ETag"] == state.files[name][1]
        unpushed = ours and state.changed(name, stat)
        if not alike and not unpushed:
            remove(root, name)
            del here[name]
    wanted = [n for n in there if n not in here and any(fnmatchcase(n, pattern) for pattern in patterns)]

    def get(name: str) -> tuple[str, tuple[Stat, str]]:
        path, told = root / name, there[name]["LastModified"].timestamp()
        store.get(name, path)
        os.utime(path, (told, told))
        return name, (stat_of(path), there[name]["ETag"])

    state.generation = generation
    state.files = {name: known for name, known in state.files.items() if name in here}
    try:
        for part in _data_first(wanted):
            state.files |= dict(_in_threads(get, part))
    finally:
        write_state(root, state)


def _begin_generation(root: Path, store: Store, state: State) -> None:
    state.generation = uuid.uuid4().hex
    store.write(_GENERATION, state.generation)
    write_state(root, state)


def _push(root: Path, address: str, is_last: bool = False) -> None:
    """`is_last`: of a session; who has read the store meanwhile then knows that it has changed."""
    with _one_at_a_time(root), store_errors(address):
        store, state = Store(address), read_state(root)
        if store.read(_GENERATION) != state.generation:
            raise OSError(
                f"{address} is being written by another machine, since this one lost its connection to the catalogue: "
                "what was done since is lost, start the same command again when that one ends"
            )
        seen = files_of(root)  # a marker that is here now has its data in the next listing
        here = files_of(root)
        markers = sorted((n for n in seen if n.endswith(".json") and n in here), key=lambda n: (seen[n].mtime_ns, n))
        data = [name for name in here if not name.endswith(".json")]
        gone = [name for name in state.files if name not in here]
        for names in reversed(_data_first(gone)):
            _in_threads(store.delete, names)
        state.files = {name: known for name, known in state.files.items() if name in here}
        try:
            _in_threads(lambda n: _put(root, store, state, n), (n for n in data if state.changed(n, here[n])))
            for name in markers:
                if state.changed(name, here[name]):
                    _put(root, store, state, name)
        finally:
            write_state(root, state)
        if is_last:
            _begin_generation(root, store, state)


def _put(root: Path, store: Store, state: State, name: str) -> None:
    path = root / name
    try:
        stat = stat_of(path)
        state.files[name] = (stat, store.put(name, path))
    except FileNotFoundError:
        if path.exists():  # the bucket is gone
            raise
        # The file is, since it was seen: the next push knows.


def _data_first(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Files, and the JSON files that tell of them."""
    listed = sorted(names)
    return [n for n in listed if not n.endswith(".json")], [n for n in listed if n.endswith(".json")]


def _in_threads(action: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(action, names))


@contextlib.contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """One thread of one process of this machine brings or pushes."""
    with (root / ".store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_locked(root: Path) -> bool:
    """Whether a session of some process of this machine is under way here."""
    with (root / _SESSION).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def is_mine(root: Path) -> bool:
    """Whether a session of this process is under way here."""
    file = root / _SESSION
    return file.is_file() and file.read_text("ascii", "replace").strip() == str(os.getpid()) and _is_locked(root)


@contextlib.contextmanager
def _pushing_meanwhile(root: Path, address: str) -> Iterator[None]:
    """What a long step has finished goes to the store every minute."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(EVERY_S):
            with _told(address):
                _push(root, address)

    thread = threading.Thread(target=work, name="store", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """An error that another one will tell better, or that the next try mends, is a line in the log."""
    try:
        yield
    except (ValueError, OSError) as error:
        logger.warning("%s: not everything could be put there yet: %s", address, error)
