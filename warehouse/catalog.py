"""The catalogue of a root's lake: a SQLite file in the root, or a PostgreSQL database by address.

A root keeps its catalogue for life. Without further ado that is ROOT/lake/catalog.sqlite; `choose_catalog` puts it into
a PostgreSQL database, whose address then lies in ROOT/lake/catalog.txt (so that every command finds it) without a
password: libpq takes that from PGPASSWORD or ~/.pgpass. The Parquet files stay in the root either way. One database
holds one lake; one root may be mounted on several machines, or lie on an object store (`warehouse.store`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import duckdb

from warehouse import mirror
from warehouse.duck import CONFIG, load_extension, quoted
from warehouse.errors import InputError
from warehouse.store import shown, store_of

_SCHEMES = ("postgres", "postgresql")


def catalog_path(root: Path) -> Path:
    """The SQLite catalogue of a root that has none in PostgreSQL."""
    return root / "lake" / "catalog.sqlite"


def data_path(root: Path) -> str:
    """Folder of the lake's Parquet files, with the trailing slash that DuckLake stores."""
    address = store_of(root)
    if address is not None:
        return f"{address}/lake/data/"
    return f"{(root / 'lake' / 'data').resolve()}/"


def catalog_address(root: Path) -> str | None:
    """The address of a root's catalogue in PostgreSQL; None where it is the SQLite file."""
    file = _address_file(root)
    return file.read_text("utf-8").strip() if file.is_file() else None


def find_catalog(root: Path) -> None:
    """Ask the store of a root where its catalogue is, if this machine does not know yet; then `has_lake` is right."""
    if not has_lake(root):
        mirror.fetch(root, "lake/*")


def has_lake(root: Path) -> bool:
    """Whether a lake was ever begun under `root` (nothing is connected to)."""
    return catalog_path(root).is_file() or _address_file(root).is_file()


@dataclass(frozen=True)
class Catalog:
    """What DuckLake attaches. `address` is None for SQLite."""

    root: Path
    address: str | None

    @property
    def extension(self) -> str:
        return "sqlite_scanner" if self.address is None else "postgres_scanner"

    @property
    def uri(self) -> str:
        """For `ATTACH`."""
        if self.address is None:
            return f"ducklake:sqlite:{catalog_path(self.root).resolve()}"
        return f"ducklake:postgres:{self.address}"

    def __str__(self) -> str:
        """For people: where it is."""
        return self.address or str(catalog_path(self.root))


def catalog_of(root: Path) -> Catalog:
    return Catalog(root, catalog_address(root))


def check_address(address: str) -> str:
    """`address` if it is `postgres://[user@][host][:port]/database[?...]` without a password, else InputError."""
    try:
        parts = urlsplit(address)
        has_password = parts.password is not None or "password" in parse_qs(parts.query)
        database = parts.path.strip("/")
        valid = parts.scheme in _SCHEMES and bool(database) and parts.port != 0
    except ValueError:
        has_password, valid = False, False
    if has_password:  # not repeated in the message, which may be logged
        raise InputError(
            "the catalogue's address holds a password: leave it out and give it in PGPASSWORD or ~/.pgpass"
        )
    if not valid or any(c.isspace() or c in "'\"\\" for c in address):
        raise InputError(f"no catalogue address {address!r}: give postgres://user@host:5432/database")
    return address


def choose_catalog(root: Path | str, address: str) -> None:
    """Give a new root its catalogue in a PostgreSQL database; a no-op where it has it already.

    Raises InputError for an address that is none or cannot be reached, a root whose catalogue is elsewhere, and a
    database that holds the lake of another root.
    """
    from warehouse.writers import lake_errors

    root = Path(root)
    check_address(address)
    find_catalog(root)
    chosen = catalog_address(root)
    if chosen == address:
        return
    if chosen is not None or catalog_path(root).is_file():
        raise InputError(f"the catalogue of {shown(root)} is {catalog_of(root)}, not {address}: choose another --root")
    with lake_errors(root):
        found = _stored_data_path(address)
    if found is not None and found != data_path(root):
        owner = found.removesuffix("/").removesuffix("/data").removesuffix("/lake")
        raise InputError(f"{address} holds the lake of {owner}: give {shown(root)} a database of its own")
    claimed = mirror.claim(root, _address_file(root).relative_to(root).as_posix(), f"{address}\n").strip()
    if claimed != address:
        raise InputError(f"another machine has chosen {claimed} for {shown(root)} just now: leave --catalog out")
    store_address(root, address)


def store_address(root: Path, address: str) -> None:
    """Write down where a root's catalogue is from now on."""
    file = _address_file(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(address + "\n", "utf-8")
    part.replace(file)


def attach_plainly(con: duckdb.DuckDBPyConnection, address: str, name: str = "catalogue") -> None:
    """Attach a PostgreSQL catalogue as the database that it is (`postgres_query`, `postgres_execute`)."""
    load_extension(con, "postgres_scanner")
    con.execute(f"ATTACH {quoted(address)} AS {name} (TYPE postgres)")


def vacuum_postgres(address: str, first: str = "") -> None:
    """Run the statement `first`, then write the tables of a PostgreSQL catalogue anew, without dead rows.

    Waits for its readers.
    """
    with duckdb.connect(config=CONFIG) as con:
        attach_plainly(con, address)
        if first:
            con.execute(f"CALL postgres_execute('catalogue', {quoted(first)})")
        con.execute("CALL postgres_execute('catalogue', 'VACUUM FULL', use_transaction => false)")


def adopt_moved_root(con: duckdb.DuckDBPyConnection, root: Path, lake: str) -> None:
    """Tell the catalogue of a moved root where its files are now, so that plain connections find them too.

    Raises InputError for a copy of a root whose catalogue is in PostgreSQL: both would write into one lake.
    """
    table = f"__ducklake_metadata_{lake}.ducklake_metadata"
    found = con.execute(f"SELECT value FROM {table} WHERE key = 'data_path'").fetchone()
    here = data_path(root)
    if not found or found[0] == here:
        return
    address = catalog_address(root)
    if address is not None and _is_alive(Path(found[0]), address) and not Path(found[0]).samefile(here):
        raise InputError(
            f"{root} is a copy of {Path(found[0]).parents[1]}, whose catalogue is {address}: work there, or give the "
            "copy a database of its own (its name in lake/catalog.txt)"
        )
    con.execute(f"UPDATE {table} SET value = {quoted(here)} WHERE key = 'data_path'")


def _address_file(root: Path) -> Path:
    return root / "lake" / "catalog.txt"


def _is_alive(data: Path, address: str) -> bool:
    """Whether the root with this data folder is there and has the same catalogue."""
    return data.is_dir() and catalog_address(data.parents[1]) == address


def _stored_data_path(address: str) -> str | None:
    """Where the lake in a database has its files; None where there is no lake yet."""
    with duckdb.connect(config=CONFIG) as con:
        attach_plainly(con, address)
        with contextlib.suppress(duckdb.CatalogException):
            row = con.execute("SELECT value FROM catalogue.ducklake_metadata WHERE key = 'data_path'").fetchone()
            return str(row[0]) if row else None
    return None
