"""Child processes that end with their parent, each started in a session of its own."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
TAIL_LINES = 15


@dataclass(frozen=True)
class Child:
    """One running child: its name for messages, its process and the file with all its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def alive(self) -> bool:
        """Is the process still running?"""
        return self.process.poll() is None

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Last lines of the child's output, for the message about its end."""
        text = self.log.read_text(errors="replace") if self.log.is_file() else ""
        return "\n".join(text.splitlines()[-lines:])


def start_child(name: str, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path) -> Child:
    """Start `command` with its output in `log` (a new file each time)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return Child(name, start_process(command, output, env, cwd), log)


def start_process(
    command: Sequence[str], output: IO[bytes] | int, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` with both its outputs in `output`, a file or subprocess.PIPE.

    A session of its own, so that Ctrl-C in the terminal reaches this process alone, which then stops its children in
    order. On Linux the kernel sends SIGTERM to the child when this process dies in any way, SIGKILL included.
    """
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
        preexec_fn=_death_signal_setter(),
    )


def stop_children(children: Sequence[Child], grace_s: float = 15.0) -> None:
    """Stop the children one after the other, in the order given, with everything that they started."""
    for child in children:
        stop_process(child.name, child.process, grace_s)


def stop_process(name: str, process: subprocess.Popen[bytes], grace_s: float = 15.0) -> None:
    """Stop a process with everything that it started.

    SIGTERM first; what still runs after `grace_s` seconds is killed. Descendants are looked up before, because a
    process of a dead parent can no longer be found through it.
    """
    family = _family(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s did not stop within %.0f s and is killed", name, grace_s)
    _end(family, min(grace_s, 5.0))
    process.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _end(family: Sequence[psutil.Process], grace_s: float) -> None:
    # psutil compares creation times first, so a number that another process has got meanwhile is never signalled.
    left = [process for process in family if process.is_running()]
    for action in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            try:
                action(process)
            except psutil.NoSuchProcess:
                continue
        _, left = psutil.wait_procs(left, timeout=grace_s)


def _death_signal_setter() -> Callable[[], None] | None:
    """What a child runs between fork and exec; None where the kernel has no such signal (macOS)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return set_death_signal
