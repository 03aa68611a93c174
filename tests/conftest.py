"""What every test may lean on. The only place that knows where test data lies by default."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store import ObjectStore, serving
from tests.postgres_cluster import Cluster, binaries, running

_SHARED = Path(__file__).resolve().parents[2] / "shared"

# A test never talks to the outside, and no tool asks for updates or sends analytics.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In two processes, nights come first, then modules with long tests: at the end none waits long for the other."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if any(map(item.get_closest_marker, ("e2e", "realdata")))}
        items.sort(key=lambda item: ("nights" not in item.path.name, item.path not in long))


def _folder(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"needs real data: {variable} names no folder ({path.name})")
    return path


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real test data (GPTFACE_TEST_DATA); the test is skipped where there is none."""
    return _folder("GPTFACE_TEST_DATA", _SHARED / "data")


@pytest.fixture(scope="session")
def test_models() -> Path:
    """Folder of face models for tests (GPTFACE_TEST_MODELS); the test is skipped where there is none."""
    return _folder("GPTFACE_TEST_MODELS", _SHARED / "models")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`--clip` of a small CLIP that knows drawn faces: a file of its architecture and one of its weights."""
    from tests.gptface_core.tiny_clip import write_tiny_clip

    config, weights = write_tiny_clip(tmp_path_factory.mktemp("clip"))
    return f"{config}:{weights}"


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of our own; the test is skipped where it is not installed."""
    folder = binaries()
    if folder is None:
        pytest.skip("needs PostgreSQL's server (initdb is not installed)")
    with running(folder) as cluster:
        yield cluster


@pytest.fixture
def postgres(postgres_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty PostgreSQL database, whose password is in the environment."""
    monkeypatch.setenv("PGPASSWORD", postgres_cluster.password)
    return postgres_cluster.new_database()


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server of our own; the test is skipped where moto is not installed."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with serving() as store:
        yield store


@pytest.fixture
def store_root(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty root on the S3 server, which the environment names; working folders lie in `tmp_path`."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GPTFACE_CACHE", str(tmp_path / "cache"))
    return object_store.new_root()
