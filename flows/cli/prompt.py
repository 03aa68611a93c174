r"""The prompt of `gptface sql`: queries over several lines, ended by ; and a few commands (\? lists them).

Queries pass the same fences as one on the command line (`warehouse.query`). On a terminal lines are edited and
remembered by readline; otherwise standard input is read to its end, as a script.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import duckdb

from warehouse.errors import InputError
from warehouse.queries import ready_queries, ready_query
from warehouse.query import FORMATS, open_for_queries, query_into

_HELP = r"""A query ends with ; and may take several lines.
\d              the tables          \d NAME         columns of one
\l              ready-made queries  \r NAME [a=b]   run one
\at N           read release N      \at             the current one again
\f FORMAT       table, csv or json  \q              leave (or Ctrl-D)
"""
_TABLES = """
    SELECT view_name AS name FROM duckdb_views() WHERE database_name = 'lake' AND schema_name = 'main'
    UNION SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = 'main' ORDER BY name"""


class Prompt:
    """Asks one root, release `at` (None: the current one). Answers go to `out`, errors to standard error."""

    def __init__(self, root: Path, format: str = "table", at: int | None = None, out: TextIO | None = None) -> None:
        if format not in FORMATS or format == "parquet":
            raise InputError(f"format {format!r}: a prompt writes {', '.join(f for f in FORMATS if f != 'parquet')}")
        self._root, self._format, self._at = root, format, at
        self._out = out or sys.stdout
        self._con = open_for_queries(root, at)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._con.close()

    def run(self, source: TextIO) -> bool:
        """Until the source or the user ends; False where a script had an error (it stops there)."""
        if not source.isatty():
            return all(self._answered(statement) for statement in _statements(source))
        which = "" if self._at is None else f", release {self._at}"
        self._out.write(f"{self._root}{which}: SELECT ... ; asks, \\? helps, \\q leaves\n")
        with _history():
            while True:
                try:
                    statement = _read()
                except EOFError:
                    self._out.write("\n")
                    return True
                except KeyboardInterrupt:  # forget what was typed
                    self._out.write("\n")
                    continue
                if statement == "\\q":
                    return True
                self._answered(statement)

    def _answered(self, statement: str) -> bool:
        try:
            if statement.startswith("\\"):
                self._command(*statement[1:].split())
            elif statement:
                for one in _split(statement):
                    query_into(self._con, one, self._format, self._out)
        except (InputError, OSError) as error:
            self._out.flush()
            sys.stderr.write(f"gptface: {error}\n")
            return False
        except (KeyboardInterrupt, duckdb.InterruptException):
            sys.stderr.write("interrupted\n")
            return False
        return True

    def _command(self, name: str = "?", *arguments: str) -> None:
        if name == "?":
            self._out.write(_HELP)
        elif name == "d" and arguments:
            query = f"SELECT column_name, column_type FROM (DESCRIBE {_identifier(arguments[0])})"
            query_into(self._con, query, "table", self._out)
        elif name == "d":
            query_into(self._con, _TABLES, "table", self._out)
        elif name == "l":
            for query_name, ready in ready_queries().items():
                takes = " ".join(f"{p.name}={p.default}" for p in ready.parameters)
                self._out.write(f"{query_name:<18}{ready.about}{f'  ({takes})' if takes else ''}\n")
        elif name == "r" and arguments:
            values = dict(text.partition("=")[::2] for text in arguments[1:])
            query_into(self._con, ready_query(arguments[0]).filled(values), self._format, self._out)
        elif name == "at":
            self._travel(arguments)
        elif name == "f" and arguments and arguments[0] in FORMATS and arguments[0] != "parquet":
            self._format = arguments[0]
        else:
            raise InputError(rf"no command \{' '.join((name, *arguments))}: \? lists them")

    def _travel(self, arguments: tuple[str, ...]) -> None:
        if arguments and not arguments[0].isdigit():
            raise InputError(f"release {arguments[0]!r}: give its number")
        at = int(arguments[0]) if arguments else None
        con = open_for_queries(self._root, at)
        self._con.close()
        self._con, self._at = con, at


def _read() -> str:
    """A command, or a query down to its semicolon, from the terminal."""
    text = input("gptface> ")
    while not _is_whole(text):
        text += "\n" + input("    ...> ")
    return text.strip()


def _statements(source: TextIO) -> Iterator[str]:
    text = ""
    for line in source:
        text += line
        if _is_whole(text):
            yield text.strip()
            text = ""
    if text.strip():
        yield text.strip()


def _is_whole(text: str) -> bool:
    """Whether nothing more is to come: a command, nothing at all, or a ; at the end that no literal holds."""
    stripped = text.strip()
    if not stripped or stripped.startswith("\\"):
        return True
    return stripped.endswith(";") and stripped.count("'") % 2 == 0 and stripped.count('"') % 2 == 0


def _split(text: str) -> list[str]:
    """The statements in `text`; the text itself where it cannot be parsed (which is then said when it is run)."""
    try:
        return [statement.query for statement in duckdb.extract_statements(text)]
    except duckdb.Error:
        return [text]


def _identifier(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Edited lines, kept from one session to the next in the user's state folder. Neither is a must."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "gptface" / "sql_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)
