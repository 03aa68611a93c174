"""A PostgreSQL server of our own for tests: real binaries, a temporary folder, a free port, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER = "gptface"


@dataclass(frozen=True)
class Cluster:
    """A running server. libpq finds `password` in PGPASSWORD."""

    port: int
    password: str
    bin: Path

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"lake_{secrets.token_hex(4)}"
        self.run("createdb", name)
        return f"postgres://{USER}@127.0.0.1:{self.port}/{name}"

    def run(self, tool: str, *arguments: str) -> str:
        """Run psql, pg_dump, createdb, ... against the server; what it printed."""
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        environment = os.environ | {"PGPASSWORD": self.password}
        done = subprocess.run(
            [self.bin / tool, *place, *arguments], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout


def binaries() -> Path | None:
    """The folder with initdb and the rest; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start a server with the binaries in `folder` and stop it at the end."""
    owner = _owner()
    place = Path(tempfile.mkdtemp(prefix="gptface-postgres-"))
    try:
        password = secrets.token_hex(8)
        (place / "password").write_text(password)
        if owner is not None:
            for path in (place, place / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        _call(owner, folder / "initdb", "-D", place / "data", "-U", USER, "-A", "scram-sha-256", "--no-sync",
              "--pwfile", place / "password")  # fmt: skip
        port = _free_port()
        options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = (folder / "pg_ctl", "-D", place / "data", "-w", "-l", place / "log")
        _call(owner, *control, "-o", options, "start")
        try:
            yield Cluster(port, password, folder)
        finally:
            _call(owner, *control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _owner() -> pwd.struct_passwd | None:
    """PostgreSQL will not run as root: the user in whose name it then does, None for oneself."""
    if os.getuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


def _call(owner: pwd.struct_passwd | None, *command: str | Path) -> None:
    ids = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    output = subprocess.DEVNULL  # a server that holds a pipe open would keep us waiting
    subprocess.run(command, cwd="/", stdin=output, stdout=output, stderr=output, check=True, **ids)  # type: ignore[call-overload]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
