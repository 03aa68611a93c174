"""The report in a real browser: it renders from the file alone, without errors, and shows the lake's figures."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import warehouse
from flows.steps.report import write_report

pytestmark = pytest.mark.e2e
# Without the background flags Chromium looks for its maker's hosts, which a closed network refuses.
QUIET = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium on this machine")
    return found


def _chromium(browser: str, profile: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [browser, "--headless", "--no-sandbox", *QUIET.split(), "--disable-sync", f"--user-data-dir={profile}"]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=120, check=False)


def test_the_page_shows_the_figures_of_the_lake(browser: str, built_root: Path, tmp_path: Path) -> None:
    page = write_report(built_root)
    with contextlib.closing(warehouse.connect(built_root)) as con:
        reasons = con.execute("SELECT reason, pairs FROM funnel WHERE reason <> 'kept'").fetchall()
        kept = con.execute("SELECT count(*) FROM corpus").fetchall()[0][0]
    shown = _chromium(browser, tmp_path / "profile", "--enable-logging=stderr", "--dump-dom", page.as_uri())
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "Refused to" not in shown.stderr, "the page breaks its own content policy"
    text = shown.stdout
    assert f'<span class="label">Kept</span><b>{kept:,}</b>' in text
    for reason, pairs in reasons:
        row = text.split(f">{reason}<", 1)[1][:300]
        assert f">{pairs}<" in row.replace("\n", "").replace(" ", ""), f"{reason}: {pairs} not beside it"


def test_the_page_is_not_blank(browser: str, built_root: Path, tmp_path: Path) -> None:
    page, shot = write_report(built_root), tmp_path / "page.png"
    words = ("--window-size=1200,1400", f"--screenshot={shot}", page.as_uri())
    done = _chromium(browser, tmp_path / "profile", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    with Image.open(shot) as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=2**24)
    assert colours is not None
    assert len(colours) > 100
