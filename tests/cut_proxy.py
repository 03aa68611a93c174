"""A TCP proxy in front of PostgreSQL, whose line can be cut at a COMMIT and mended later."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Moment = Literal["unsent", "unanswered"]


class Proxy:
    """Forwards 127.0.0.1:`port` to the server's port. Cut, it closes all connections and takes no new ones."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._moment: Moment | None = None
        self._answered = threading.Event()
        self.is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at_commit(self, moment: Moment) -> None:
        self._moment = moment

    def cut(self) -> None:
        with self._lock:
            self.is_cut, self._moment = True, None
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut = False

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self.is_cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open |= {client, server}
            for source, sink, is_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._forward, args=(source, sink, is_client), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        has_written = False
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                moment = self._moment if is_client else None
                has_written |= moment is not None and b"INSERT INTO" in data
                if has_written and b"COMMIT" in data:
                    if moment == "unanswered":
                        self._drop_answer(sink, data)
                    self.cut()
                    break
                if self.is_cut:
                    self._answered.set()
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source, sink}

    def _drop_answer(self, server: socket.socket, data: bytes) -> None:
        """Let the server do what was asked, and keep from the client that it did."""
        self._answered.clear()
        self.is_cut = True  # the other direction forwards nothing from now on
        server.sendall(data)
        self._answered.wait(30)


@dataclass(frozen=True)
class Line:
    """A proxy in a process of its own: DuckDB holds the interpreter's lock while it waits for some answers."""

    port: int
    process: subprocess.Popen[str]

    def cut_at_commit(self, moment: Moment) -> None:
        """Cut when a client commits what it writes from now on: before the server gets the word, or before the client
        gets the answer."""
        self._tell(f"cut {moment}")

    def mend(self) -> None:
        self._tell("mend")

    @property
    def is_cut(self) -> bool:
        return self._tell("state") == "cut"

    def _tell(self, words: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def in_front_of(port: int) -> Iterator[Line]:
    command = [sys.executable, __file__, str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            yield Line(int(process.stdout.readline()), process)
        finally:
            process.kill()


def main(target: int) -> None:
    """Serve until standard input ends; one answer per line of it."""
    proxy = Proxy(target)
    _say(str(proxy.port))
    for line in sys.stdin:
        command, *words = line.split()
        if command == "cut":
            proxy.cut_at_commit("unsent" if words == ["unsent"] else "unanswered")
        elif command == "mend":
            proxy.mend()
        _say("cut" if proxy.is_cut else "open")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
