"""DuckDB as this project uses it: its settings, its extensions from installed wheels, and literals."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import duckdb

from warehouse.errors import InputError

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    # Nothing is downloaded: the extensions come with our packages. Python variables are not tables.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    # The extensions are files of installed packages, as trusted as their Python code. Checking their signatures would
    # hash 70 MB at every start: 0.3 s where 0.01 s does.
    "allow_unsigned_extensions": "true",
}


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def load_extension(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension from its wheel by path: no network, no file in the home folder.

    Raises InputError where the wheel is missing or made for another DuckDB.
    """
    spec = find_spec(f"duckdb_extension_{name}")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        file = Path(folder) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if file.is_file():
            con.execute(f"LOAD {quoted(str(file))}")
            return
    wheel = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
    raise InputError(f"DuckDB's extension {name!r} is not installed: pip install {wheel}")
