"""The page: figures, charts and pictures through a Jinja template into one HTML file that asks the network for nothing.

Captions, addresses and names are hostile input: everything is escaped, links are http(s) only, and the page's own
Content-Security-Policy forbids scripts, requests and frames, should anything slip through.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from warehouse.report.balance import Balance
from warehouse.report.changes import Changes
from warehouse.report.charts import Chart, histogram_chart
from warehouse.report.data import CorpusReport
from warehouse.report.dropped import DroppedReason
from warehouse.report.gallery import Face
from warehouse.report.spread import Spread

if TYPE_CHECKING:
    from jinja2 import Environment

# Shown on the page as ready to run; a test runs them.
EXAMPLE_QUERIES = (
    "select count(*) from corpus",
    "select reason, pairs, remaining from funnel",
    "select page_host, count(*), avg(face_px) from corpus group by page_host order by 2 desc limit 10",
    "select release, created_at, code_version from releases order by release",
)


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what it is to be compared with, both as texts."""

    label: str
    value: str
    beside: str = ""  # chance level or baseline
    note: str = ""  # interval, number of samples
    good: bool | None = None  # better than what is beside it; None where nothing is compared
    group: str = ""  # the benchmark, where it has several figures


@dataclass(frozen=True)
class Confusion:
    """How often things of one class (rows) were called which (columns)."""

    title: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Subgroup:
    """Of one group; `share` is empty where it has too few samples."""

    name: str
    share: str
    note: str
    samples: int


@dataclass(frozen=True)
class Subgroups:
    title: str
    rows: tuple[Subgroup, ...]


@dataclass(frozen=True)
class Picture:
    title: str
    note: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class ModelReport:
    """What the page says about one model; filled by the caller, who knows the model's files."""

    name: str
    headline: tuple[Figure, ...] = ()  # also on top of the page
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    calibration: tuple[Chart, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    subgroups: tuple[Subgroups, ...] = ()
    pictures: tuple[Picture, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    evaluated: bool = False
    left_out: tuple[tuple[str, str], ...] = ()  # what was not measured (several names in one), why


@dataclass(frozen=True)
class More:
    """What the page says about a corpus beyond its funnel."""

    spread: Spread
    balance: tuple[Balance, ...]
    dropped: tuple[DroppedReason, ...]


def render_page(
    root: Path,
    corpus: CorpusReport,
    faces: Sequence[Face],
    model: ModelReport | None,
    changes: Changes | None = None,
    more: More | None = None,
) -> str:
    """The report as HTML. Deterministic: the same arguments give the same text."""
    environment = _environment(autoescape=True)
    histograms = (*corpus.histograms, *(more.spread.histograms if more else ()))
    charts = [chart for h in histograms if (chart := histogram_chart(h)) is not None]
    at = shlex.quote(str(root))
    return environment.get_template("report.html.j2").render(
        corpus=corpus,
        dropped=[r for r in corpus.reasons if r.reason != "kept"],
        charts=charts,
        faces=faces,
        changes=changes,
        more=more,
        model=model,
        root=at,
        queries=[shlex.quote(query) for query in EXAMPLE_QUERIES],
    )


def render_model_card(**told: Any) -> str:
    """The model card as Markdown: the arguments are those of the template model.md.j2."""
    return _environment(autoescape=False).get_template("model.md.j2").render(**told)


def _environment(autoescape: bool) -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": _duration,
        "count": lambda value: f"{value:,}",
        "percent": percent,
        "pretty": lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False),
        "size": _size,
        "web_link": web_link,
        "words": lambda name: str(name).replace("_", " "),
    }
    return environment


def write_page(path: Path, html: str) -> Path:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(html, encoding="utf-8", errors="replace")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def web_link(url: str) -> str:
    """The address where it is http(s), else an empty text: `javascript:` and the like never become links."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.netloc else ""


def percent(share: float) -> str:
    """A share 0..1 with as many digits as it needs: 87 %, 4.2 %, 0.03 %."""
    value = 100 * share
    digits = 0 if value >= 99.95 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{digits}f} %"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _size(count: int) -> str:
    """Bytes in a readable unit."""
    value, units = float(count), ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if value < 1024 or unit == units[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit holds everything")
