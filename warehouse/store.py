"""A root on an object store: its address, its working folder on this machine, and how the store is reached.

`--root s3://bucket/folder` works in a folder of this machine (below GPTFACE_CACHE), which is a root like any other but
for the file store.txt in it: that names the store, as lake/catalog.txt names a catalogue in PostgreSQL. The lake's
Parquet files lie on the store alone, where DuckDB reads and writes them; all other files are kept alike by
`warehouse.mirror`. Credentials, region and endpoint come from where AWS's own tools take them (AWS_* in the
environment, ~/.aws, the machine's role).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse.errors import InputError
from warehouse.files import replacing

if TYPE_CHECKING:
    import duckdb

STORE_FILE = "store.txt"
_ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.=-]+)*")
_ANY_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/+", re.IGNORECASE)
_FOREIGN = frozenset({"aiohttp", "botocore", "aiobotocore", "fsspec"})


def find_root(place: str | Path) -> Path:
    """The folder in which a root is worked on: itself, or for `s3://bucket/folder` its working folder, which is made.

    Raises InputError for an address that is none, OSError where the working folder cannot be made.
    """
    text = str(place)
    scheme = _ANY_SCHEME.match(text)
    if scheme is None:
        return Path(place)
    address = f"{scheme[1]}://{text[scheme.end() :].rstrip('/')}"  # a Path has made one slash of two
    if not _ADDRESS.fullmatch(address) or "/../" in f"{address}/" or "/./" in f"{address}/":
        raise InputError(f"no root {address!r}: give a folder, or s3://bucket/folder")
    folder = _cache() / f"{address.removeprefix('s3://').replace('/', '-')[:48]}-{_short_hash(address)}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / STORE_FILE
    if not file.is_file():
        with replacing(file) as part:
            part.write_text(address + "\n", "utf-8")
    return folder


def store_of(root: Path) -> str | None:
    """The address of the store of which `root` is the working folder; None for a root of its own."""
    file = root / STORE_FILE
    return file.read_text("utf-8").strip() if file.is_file() else None


def shown(root: Path) -> str:
    """What a person calls this root: the store's address, else the folder."""
    return store_of(root) or str(root)


def need_folder(root: Path, what: str) -> None:
    """Raises InputError where `root` is on an object store, with which `what` cannot deal."""
    address = store_of(root)
    if address is not None:
        raise InputError(
            f"{what} works on a root on disk, not on {address}: give a folder; docs/operations.md tells the way out"
        )


def filesystem() -> Any:
    """s3fs's view of the store. Raises InputError where it is not installed."""
    try:
        import s3fs
    except ImportError as error:
        raise InputError("a root on s3:// needs s3fs: pip install 'gptface[s3,postgres]'") from error
    return s3fs.S3FileSystem(endpoint_url=_endpoint() or None, use_listings_cache=False)


@contextlib.contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Turn what s3fs raises into one line: InputError for what a user can mend, OSError for a store that is away."""
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        if error.filename:  # a file of the working folder
            raise
        if isinstance(error, PermissionError):
            raise InputError(f"{address}: the store refuses ({_line(error)}): check AWS_ACCESS_KEY_ID") from error
        raise InputError(f"{address}: the store has no such bucket or file ({_line(error)})") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _FOREIGN:
            raise
        if "Credentials" in type(error).__name__:
            raise InputError(f"{address}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
        raise OSError(f"{address} cannot be reached: {_line(error)}") from error


def keeps_old_versions(root: Path) -> bool:
    """Whether the store of a root keeps what is deleted or written over, as a bucket with versions does."""
    address = store_of(root)
    if address is None:
        return False
    with store_errors(address):
        return bool(filesystem().is_bucket_versioned(address.removeprefix("s3://").partition("/")[0]))


def open_store(con: duckdb.DuckDBPyConnection, address: str) -> None:
    """Let a DuckDB connection read and write what lies below `address`, with the credentials of this moment."""
    from warehouse.duck import load_extension, quoted

    load_extension(con, "httpfs")
    key, secret, token, region = _credentials(address)
    options = {"KEY_ID": key, "SECRET": secret, "SESSION_TOKEN": token, "REGION": region}
    endpoint = _endpoint()
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        options |= {"ENDPOINT": host.rstrip("/"), "URL_STYLE": "path"}
    listed = [f"{name} {quoted(value)}" for name, value in options.items() if value]
    if endpoint and scheme == "http":
        listed.append("USE_SSL false")
    con.execute(f"CREATE SECRET root (TYPE s3, SCOPE {quoted(address + '/')}, {', '.join(listed)})")


def _endpoint() -> str:
    """Another store than Amazon's; empty for that."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _credentials(address: str) -> tuple[str, str, str, str]:
    """Key, secret, session token, region: from the environment, else as botocore finds them (files, a role)."""
    from_environment = [os.environ.get(f"AWS_{name}", "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    if all(from_environment) and (region or _endpoint()):
        return from_environment[0], from_environment[1], os.environ.get("AWS_SESSION_TOKEN", ""), region or "us-east-1"
    import botocore.session

    session = botocore.session.get_session()
    with store_errors(address):
        found = session.get_credentials()
    if found is None:
        raise InputError(f"{address}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    frozen = found.get_frozen_credentials()
    region = region or session.get_config_variable("region") or "us-east-1"
    return frozen.access_key, frozen.secret_key, frozen.token or "", region


def _cache() -> Path:
    """GPTFACE_CACHE, else gptface/ in the user's cache folder."""
    own = os.environ.get("GPTFACE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptface"


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
