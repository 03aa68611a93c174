"""One running `gptface up` for the tests that only use it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from up_process import Up, start_up

# Whatever imports prefect in a test writes here, not to the user's home.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="gptface-test-prefect-")


@pytest.fixture(scope="session")
def prefect_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = start_up(tmp_path_factory.mktemp("up"))
    yield up
    if up.process.poll() is None:
        up.stop()
