"""Geometry of the report's charts: small inline SVG with fixed coordinates, drawn by the macros of charts.html.j2.

Bars of counts are HTML tables with bars in their cells; only what needs axes is SVG. A plotting library would make the
page several MB heavier or a picture without text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warehouse.report.data import Histogram

WIDTH, HEIGHT = 340.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 34.0
_MAX_POINTS = 160


@dataclass(frozen=True)
class Tick:
    at: float  # x or y in the drawing
    label: str


@dataclass(frozen=True)
class Bar:
    x: float
    width: float
    y: float  # top of all that were found
    y_kept: float
    label: str


@dataclass(frozen=True)
class Line:
    name: str
    points: str  # of an SVG polyline
    last: str


@dataclass(frozen=True)
class Chart:
    """A drawing of `WIDTH` x `HEIGHT`, y downwards. `summary` is its text for those who do not see it."""

    title: str
    x_label: str
    summary: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    threshold: Tick | None = None
    note: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class _Scale:
    """Linear map of [low, high] to [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` or below to `high` or above."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(s * power for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * power >= span / count * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """Short text of a number: 12,000, 0.85, 1.2e-05."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def histogram_chart(h: Histogram) -> Chart | None:
    """Bars of what was found with the kept part inside; None where nothing was found."""
    if not h.found:
        return None
    high = h.low + h.width * len(h.found)
    x = _Scale(h.low, high, LEFT, WIDTH - RIGHT)
    y_values = ticks(0, max(h.found), 4)
    y = _Scale(0, y_values[-1], HEIGHT - BOTTOM, TOP)
    bars = []
    for i, (found, kept) in enumerate(zip(h.found, h.kept, strict=True)):
        start = h.low + i * h.width
        last = h.open_ended and i == len(h.found) - 1
        span = f"{number(start)} and more" if last else f"{number(start)} to {number(start + h.width)}"
        label = f"{span} {h.unit}: {found:,} found, {kept:,} kept"
        bars.append(Bar(x(start) + 0.5, max(x(start + h.width) - x(start) - 1, 1.0), y(found), y(kept), label))
    shown = h.threshold is not None and h.low <= h.threshold <= high
    threshold = Tick(x(h.threshold), number(h.threshold)) if shown and h.threshold is not None else None
    medians = f"median {_text(h.median_found, h.unit)} found, {_text(h.median_kept, h.unit)} kept"
    return Chart(
        title=h.title,
        x_label=(h.unit + (", the last bar holds all above" if h.open_ended else "")).strip(", "),
        summary=f"{h.title}: {sum(h.found):,} pictures found, {sum(h.kept):,} kept; {medians}",
        x_ticks=tuple(Tick(x(v), number(v)) for v in ticks(h.low, high) if h.low <= v <= high),
        y_ticks=tuple(Tick(y(v), number(v)) for v in y_values),
        bars=tuple(bars),
        threshold=threshold,
        note=medians,
    )


def line_chart(
    title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_label: str = "step", note: str = ""
) -> Chart | None:
    """Curves of `(name, [(x, y), ...])`, at most 5; values that are not finite are left out. None without any point."""
    finite = [(name, [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]) for name, points in series]
    curves = [(name, _thin(points)) for name, points in finite if points]
    if not curves:
        return None
    xs = [a for _, points in curves for a, _ in points]
    ys = [b for _, points in curves for _, b in points]
    x_values, y_values = ticks(min(xs), max(xs)), ticks(min(ys), max(ys), 4)
    x = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y = _Scale(y_values[0], y_values[-1], HEIGHT - BOTTOM, TOP)
    lines = tuple(
        Line(name, " ".join(f"{x(a):g},{y(b):g}" for a, b in points), number(points[-1][1])) for name, points in curves
    )
    said = "; ".join(f"{name} from {number(points[0][1])} to {number(points[-1][1])}" for name, points in curves)
    return Chart(
        title=title,
        x_label=x_label,
        summary=f"{title} over {x_label}: {said}",
        x_ticks=tuple(Tick(x(v), number(v)) for v in x_values if min(xs) <= v <= max(xs)),
        y_ticks=tuple(Tick(y(v), number(v)) for v in y_values),
        lines=lines,
        note=note,
    )


def _text(value: float | None, unit: str) -> str:
    return "none" if value is None else f"{number(value)} {unit}".strip()


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbouring points, so that no curve has more than `_MAX_POINTS`."""
    size = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(a for a, _ in g) / len(g), sum(b for _, b in g) / len(g)) for g in groups]
