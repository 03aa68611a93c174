"""The ready-made queries of `warehouse/sql/`: what each answers, and the values that some of them take.

The first line of a file says what it answers. A line `-- name: default  what it is` makes `$name` a parameter of the
query; the type of the default (a number, else text) is that of the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from warehouse.duck import quoted
from warehouse.errors import InputError

_PARAMETER = re.compile(r"^-- (?P<name>[a-z_]+): (?P<default>\S+) +(?P<help>.+)$", re.MULTILINE)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Parameter:
    """A value that a query takes. Its default says whether it is a number."""

    name: str
    default: str
    help: str

    def literal(self, text: str) -> str:
        """`text` as SQL. Raises InputError where a number is wanted and it is none."""
        if not _NUMBER.fullmatch(self.default):
            return quoted(text)
        if not _NUMBER.fullmatch(text):
            raise InputError(f"{self.name}={text!r}: give a number")
        return text


@dataclass(frozen=True)
class ReadyQuery:
    """One file of `warehouse/sql/`."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    sql: str

    def filled(self, values: Mapping[str, str]) -> str:
        """The SQL with `values`, and defaults for the rest. Raises InputError for a name that it does not take."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in values:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise InputError(f"query {self.name} has no parameter {name!r}: {takes}")
        literals = {name: p.literal(values.get(name, p.default)) for name, p in known.items()}
        return re.sub(r"\$([a-z_]+)", lambda found: literals[found[1]], self.sql)


def ready_queries() -> dict[str, ReadyQuery]:
    """All of them, by name."""
    found = sorted((f for f in (files("warehouse") / "sql").iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return {query.name: query for query in (_read(f.name.removesuffix(".sql"), f.read_text("utf-8")) for f in found)}


def ready_query(name: str) -> ReadyQuery:
    """The query `name`; InputError that names all others where there is none."""
    known = ready_queries()
    if name not in known:
        raise InputError(f"no ready-made query {name!r}: choose {', '.join(known)}")
    return known[name]


def _read(name: str, text: str) -> ReadyQuery:
    lines = text.splitlines()
    parameters = tuple(Parameter(**found.groupdict()) for found in _PARAMETER.finditer(text))
    sql = "\n".join(line for line in lines if not line.startswith("--"))
    return ReadyQuery(name, lines[0].removeprefix("-- "), parameters, sql.strip())
