"""What pictures of a host have refused, shared by the workers of a build and kept when they die.

One small file per host that has refused anything, below crawl_dir/consent/refusals, which is only ever appended to: a
line per refusal ("r", address, HTTP status, evidence), and one ("g") for the first good answer after some. Appending is
atomic, and a look at its size, before every request, tells whether another worker has learnt something.
"""

from __future__ import annotations

import os
from pathlib import Path

from warehouse.schema import url_id

_EVIDENCE_CHARS = 300


def refusals_dir(crawl_dir: Path) -> Path:
    return crawl_dir / "consent" / "refusals"


class HostRefusals:
    """The refusals of one host. Not safe between threads; the owner's lock guards it."""

    def __init__(self, folder: Path, host: str, limit: int) -> None:
        self._path = str(folder / url_id(host))
        self._limit = limit
        self._read = 0  # bytes of the file that are known
        self._evidence: dict[str, str] = {}  # url_id of an address that refused -> what said so
        self.in_a_row = 0
        self.fault: OSError | None = None  # why a refusal could not be written: it then counts in this process alone

    @property
    def is_final(self) -> bool:
        """True where so many pictures refused in a row that the host is not asked any more."""
        return self.in_a_row >= self._limit

    def look(self) -> None:
        """Learn what other workers have written since."""
        try:
            size = os.stat(self._path).st_size  # noqa: PTH116 before every request: pathlib takes twice as long
        except FileNotFoundError:
            return
        if size > self._read:
            self._learn()

    def evidence(self, url: str) -> str | None:
        """What refused at this very address before, or None."""
        return self._evidence.get(url_id(url)) if self._evidence else None

    def add(self, url: str, status: int | None, evidence: str) -> None:
        words = " ".join(evidence.split())[:_EVIDENCE_CHARS]
        self._append(f"r\t{url_id(url)}\t{status or ''}\t{words}\n")

    def good(self) -> None:
        """A good answer ends the row of refusals, unless the host is through already."""
        if self.in_a_row and not self.is_final:
            self._append("g\n")

    def _append(self, line: str) -> None:
        try:
            self._write(line.encode("utf-8", "replace"))
        except OSError as error:  # raised here, it would leave the other threads waiting for this row
            self.fault = error
            self._take(line.rstrip("\n"))
        else:
            self._learn()

    def _write(self, line: bytes) -> None:
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def _learn(self) -> None:
        with Path(self._path).open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # a crash may leave half a line
        self._read += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            if self.is_final:
                break
            self._take(line)

    def _take(self, line: str) -> None:
        kind, _, rest = line.partition("\t")
        if kind == "r":
            self.in_a_row += 1
            address, _, said = rest.partition("\t")
            self._evidence[address] = said.replace("\t", " ").strip()
        elif kind == "g":
            self.in_a_row = 0
