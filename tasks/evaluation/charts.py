"""Small charts as inline SVG: no script, no fonts of their own, coloured by the page's style sheet.

Text takes the page's ink and series take its palette (CSS classes ``s0`` to ``s5``), so that one drawing serves light
and dark. Every chart has a title for screen readers. Equal data give equal bytes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

_WIDTH, _HEIGHT = 440, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44
_ROW = 24


@dataclass(frozen=True)
class Axis:
    """A labelled linear axis from ``low`` to ``high``."""

    label: str
    low: float
    high: float

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round numbers within the axis, about ``wanted`` of them."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        raw = span / wanted
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Series:
    """One named line or cloud of points; ``style`` is a number of the palette."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int


def scatter(title: str, x: Axis, y: Axis, series: Sequence[Series], *, diagonal: bool = False) -> Markup:
    """Clouds of points; ``diagonal`` draws the line of equality."""
    place_x, place_y = _scales(x, y)
    parts = []
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        ends = f'x1="{place_x(low)}" y1="{place_y(low)}" x2="{place_x(high)}" y2="{place_y(high)}"'
        parts.append(f'<line class="guide" {ends}/>')
    for one in series:
        dots = "".join(
            f'<circle cx="{place_x(a)}" cy="{place_y(b)}" r="2.6"/>' for a, b in zip(one.x, one.y, strict=True)
        )
        parts.append(f'<g class="s{one.style} dots">{dots}</g>')
    return _chart(title, [*_axes(x, y), *parts, *_legend([(one.name, one.style) for one in series])])


def lines(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Markup:
    """Lines through their points; a gap (NaN) interrupts a line."""
    place_x, place_y = _scales(x, y)
    parts = []
    for one in series:
        path, pen = [], "M"
        for a, b in zip(one.x, one.y, strict=True):
            if math.isfinite(b):
                path.append(f"{pen}{place_x(a)} {place_y(b)}")
                pen = "L"
            else:
                pen = "M"
        parts.append(f'<path class="s{one.style} line" d="{"".join(path)}"/>')
    return _chart(title, [*_axes(x, y), *parts, *_legend([(one.name, one.style) for one in series], right=True)])


def histogram(title: str, x: Axis, groups: Sequence[tuple[str, ArrayLike]], bins: int) -> Markup:
    """Stacked counts of several groups over equal bins of the axis."""
    edges = np.linspace(x.low, x.high, bins + 1)
    counts = [np.histogram(np.clip(np.asarray(values, float), x.low, x.high), edges)[0] for _, values in groups]
    top = 1.1 * max(1, int(np.sum(counts, axis=0).max())) if counts else 1.0  # room for the legend
    y = Axis("samples", 0, top)
    place_x, place_y = _scales(x, y)
    parts, base = [], np.zeros(bins)
    for style, count in enumerate(counts):
        bars = ""
        for i, value in enumerate(count):
            if value:
                left, right = place_x(edges[i]), place_x(edges[i + 1])
                upper, lower = place_y(base[i] + value), place_y(base[i])
                size = f'width="{_number(right - left - 1)}" height="{_number(lower - upper)}"'
                bars += f'<rect x="{left}" y="{upper}" {size}/>'
        parts.append(f'<g class="s{style} fill">{bars}</g>')
        base = base + count
    return _chart(title, [*_axes(x, y), *parts, *_legend([(name, i) for i, (name, _) in enumerate(groups)])])


def intervals(
    title: str, x: Axis, rows: Sequence[tuple[str, float | None, float | None, float | None]], *, zero: bool = False
) -> Markup:
    """One labelled row per item with its value and interval; ``zero`` marks the zero line."""
    width = _WIDTH
    left = min(0.6 * width, 14 + 6.1 * max((len(name) for name, *_ in rows), default=0))
    height = _TOP + _ROW * len(rows) + _BOTTOM
    span = (width - left - _RIGHT) / max(x.high - x.low, 1e-12)

    def place(value: float) -> float:
        return _number(left + (min(max(value, x.low), x.high) - x.low) * span)

    bottom = height - _BOTTOM
    parts = []
    for tick in x.ticks():
        parts += [
            f'<line class="grid" x1="{place(tick)}" y1="{_TOP}" x2="{place(tick)}" y2="{bottom}"/>',
            f'<text class="tick" x="{place(tick)}" y="{bottom + 16}" text-anchor="middle">{_text(tick)}</text>',
        ]
    parts.append(_label(x.label, (left + width - _RIGHT) / 2, height - 8))
    if zero and x.low < 0 < x.high:
        parts.append(f'<line class="guide" x1="{place(0)}" y1="{_TOP}" x2="{place(0)}" y2="{bottom}"/>')
    for i, (name, value, low, high) in enumerate(rows):
        y = _number(_TOP + _ROW * (i + 0.5))
        parts.append(
            f'<text class="row" x="{_number(left - 8)}" y="{_number(y + 4)}" text-anchor="end">{escape(name)}</text>'
        )
        if low is not None and high is not None:
            parts.append(f'<line class="s0 bar" x1="{place(low)}" y1="{y}" x2="{place(high)}" y2="{y}"/>')
        if value is not None:
            parts.append(f'<circle class="s0 fill" cx="{place(value)}" cy="{y}" r="4.5"/>')
    return _chart(title, parts, height)


def levels(title: str, names: Sequence[str], probabilities: Sequence[float]) -> Markup:
    """Bars of the level probabilities, best first, each with its number."""
    width, height, bottom = 220, 110, 88
    slot = width / len(names)
    parts = []
    for i, (name, value) in enumerate(zip(names, probabilities, strict=True)):
        size = _number(62 * value)
        centre = _number(slot * (i + 0.5))
        corner = f'x="{_number(slot * i + 6)}" y="{_number(bottom - size)}"'
        parts += [
            f'<rect class="l{i} fill" {corner} width="{_number(slot - 12)}" height="{size}"/>',
            f'<text class="tick" x="{centre}" y="{_number(bottom - size - 4)}" text-anchor="middle">{value:.2f}</text>',
            f'<text class="tick" x="{centre}" y="{bottom + 15}" text-anchor="middle">{escape(name)}</text>',
        ]
    return _chart(title, parts, height, width)


def nice_range(values: ArrayLike, pad: float = 0.05) -> tuple[float, float]:
    """Range of finite values with a margin; (0, 1) if there are none."""
    numbers: NDArray[np.float64] = np.asarray(values, dtype=np.float64).ravel()
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) == 0:
        return 0.0, 1.0
    low, high = float(numbers.min()), float(numbers.max())
    margin = (high - low) * pad or 0.5
    return low - margin, high + margin


def _scales(x: Axis, y: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    def place(axis: Axis, start: float, end: float) -> Callable[[float], float]:
        span = max(axis.high - axis.low, 1e-12)
        return lambda value: _number(start + (min(max(value, axis.low), axis.high) - axis.low) / span * (end - start))

    return place(x, _LEFT, _WIDTH - _RIGHT), place(y, _HEIGHT - _BOTTOM, _TOP)


def _axes(x: Axis, y: Axis) -> list[str]:
    place_x, place_y = _scales(x, y)
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in y.ticks():
        height = place_y(tick)
        parts += [
            f'<line class="grid" x1="{_LEFT}" y1="{height}" x2="{right}" y2="{height}"/>',
            f'<text class="tick" x="{_LEFT - 6}" y="{_number(height + 4)}" text-anchor="end">{_text(tick)}</text>',
        ]
    for tick in x.ticks():
        parts.append(
            f'<text class="tick" x="{place_x(tick)}" y="{bottom + 16}" text-anchor="middle">{_text(tick)}</text>'
        )
    turned = f'transform="translate(12 {_number((_TOP + bottom) / 2)}) rotate(-90)"'
    parts += [
        f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>',
        _label(x.label, (_LEFT + right) / 2, _HEIGHT - 8),
        f'<text class="label" {turned} text-anchor="middle">{escape(y.label)}</text>',
    ]
    return parts


def _legend(entries: Sequence[tuple[str, int]], *, right: bool = False) -> list[str]:
    """Names in an upper corner: left for what rises, right for what falls; a single series needs none."""
    if len(entries) < 2:
        return []
    parts = []
    swatch, text, anchor = (
        (_WIDTH - _RIGHT - 18, _WIDTH - _RIGHT - 23, "end") if right else (_LEFT + 8, _LEFT + 23, "start")
    )
    for i, (name, style) in enumerate(entries):
        y = _TOP + 12 + 16 * i
        parts += [
            f'<rect class="s{style} fill" x="{swatch}" y="{y - 9}" width="10" height="10" rx="2"/>',
            f'<text class="tick" x="{text}" y="{y}" text-anchor="{anchor}">{escape(name)}</text>',
        ]
    return parts


def _label(text: str, x: float, y: float) -> str:
    return f'<text class="label" x="{_number(x)}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _chart(title: str, parts: Sequence[str], height: float = _HEIGHT, width: float = _WIDTH) -> Markup:
    head = f'<svg class="chart" role="img" viewBox="0 0 {width} {_text(height)}" aria-label="{escape(title)}">'
    return Markup(f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>")  # noqa: S704 - every text is escaped


def _number(value: float) -> float:
    return round(float(value), 1)


def _text(value: float) -> str:
    return f"{value:g}"
