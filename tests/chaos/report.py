"""What a chaos run looked like: one page of Markdown and one picture, for people.

The picture has throughput and latency over time with the faults drawn in. It is drawn here, so
that a report needs nothing else to be read; its greys show on light and dark pages alike.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from history import Operation, Outcome, Violation

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
BUCKETS_MAX = 240

WIDTH, LEFT, RIGHT = 960, 76, 24
TOP, PANEL, SPACE, FOOT = 64, 190, 58, 54
INK = "#7d8590"
"""A grey that reads on white and on black."""
GRID = "#7d859055"
COLORS = {"ok": "#2f9e62", "fail": "#d08a1d", "info": "#d64545", "p50": "#3b82c4", "p99": "#a05fc4"}
BANDS = ("#d64545", "#d08a1d", "#3b82c4", "#2f9e62", "#a05fc4", "#7d8590")
STYLE = "font-family:system-ui,-apple-system,'Segoe UI',sans-serif"

Fault = tuple[str, int, int]
"""A fault's name, and when it began and was healed, on the history's clock."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A span of the run: operations a second by outcome, and latencies in ms of what was acked."""

    at_s: float
    rates: dict[str, float]
    p50_ms: float | None
    p99_ms: float | None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share is not above; the values are in order."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def buckets(operations: Sequence[Operation], start_ns: int, width_ns: int) -> list[Bucket]:
    """The run in equal spans. An operation counts where it returned."""
    returned = [each for each in operations if each.return_ns is not None]
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    waits: dict[int, list[float]] = defaultdict(list)
    for each in returned:
        end_ns = each.return_ns or 0
        place = (end_ns - start_ns) // width_ns
        counts[place][each.outcome.value] += 1
        if each.outcome is Outcome.OK:
            waits[place].append((end_ns - each.call_ns) / NS_PER_MS)
    width_s = width_ns / NS_PER_S
    spans = []
    for place in range(max(counts, default=-1) + 1):
        ordered = sorted(waits[place])
        rates = {outcome.value: counts[place][outcome.value] / width_s for outcome in Outcome}
        p50, p99 = (percentile(ordered, share) if ordered else None for share in (0.5, 0.99))
        spans.append(Bucket((place + 0.5) * width_s, rates, p50, p99))
    return spans


def nice(top: float, ticks: int = 4) -> list[float]:
    """Round marks from 0 to at least `top`."""
    rough = max(top, 1e-9) / ticks
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * 0.999)
    return [step * place for place in range(math.ceil(top / step - 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten around a range, for a logarithmic axis."""
    first = math.floor(math.log10(max(low, 1e-3)))
    last = max(first + 1, math.ceil(math.log10(max(high, 1e-3))))
    return [10.0**power for power in range(first, last + 1)]


def number(value: float) -> str:
    """A figure as an axis shows it."""
    if value >= 1_000:
        return f"{value:,.0f}".replace(",", "\u2009")
    return f"{value:g}"


class _Picture:
    """Gathers the elements of the drawing."""

    def __init__(self, seconds: float, title: str) -> None:
        self.marks = nice(seconds, 8)
        self.seconds = max(seconds, 1e-9)
        self.height = TOP + 2 * PANEL + SPACE + FOOT
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}"',
            f' role="img" style="{STYLE}" fill="{INK}" font-size="12">',
            f"<title>{escape(title)}</title>",
        ]

    def x(self, seconds: float) -> float:
        """Where a moment of the run is."""
        share = min(max(seconds / self.seconds, 0.0), 1.0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def text(self, x: float, y: float, words: str, anchor: str = "start", more: str = "") -> None:
        """A label."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str) -> None:
        """A hair line."""
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {ends} stroke="{color}" stroke-width="1"/>')

    def band(self, fault: tuple[str, float, float], color: str, row: int) -> None:
        """A fault, over both panels, with its name above the upper one."""
        name, begin_s, end_s = fault
        left, right = self.x(begin_s), self.x(end_s)
        for y in (TOP, TOP + PANEL + SPACE):
            self.parts.append(
                f'<rect x="{left:.1f}" y="{y}" width="{max(right - left, 1.5):.1f}" '
                f'height="{PANEL}" fill="{color}" fill-opacity="0.15">'
                f"<title>{escape(name)}: {begin_s:.1f} to {end_s:.1f} s</title></rect>"
            )
        if row < 3:
            late = left > WIDTH * 0.8
            anchor, x = ("end", right) if late else ("start", left)
            self.text(x, TOP - 6 - 14 * row, name, anchor, f'fill="{color}" font-size="11"')

    def panel(self, top: float, label: str, marks: Sequence[tuple[float, str]]) -> None:
        """The frame of a panel; marks are (share of the height, words)."""
        for share, words in marks:
            y = top + PANEL * (1 - share)
            self.line(LEFT, y, WIDTH - RIGHT, y, GRID)
            self.text(LEFT - 8, y + 4, words, "end")
        for mark in self.marks:
            if mark <= self.seconds * 1.0001:
                x = self.x(mark)
                self.line(x, top + PANEL, x, top + PANEL + 4, INK)
                self.text(x, top + PANEL + 18, number(mark), "middle")
        self.line(LEFT, top + PANEL, WIDTH - RIGHT, top + PANEL, INK)
        middle = top + PANEL / 2
        turned = f'transform="rotate(-90 18 {middle:.1f})"'
        self.text(18, middle, label, "middle", turned)

    def curve(self, points: Iterable[tuple[float, float] | None], color: str) -> None:
        """A line that is broken where there is nothing to show."""
        path, pen = [], "M"
        for point in points:
            if point is None:
                pen = "M"
                continue
            path.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
            # A lone point between two holes is still drawn, as a dot.
            path += ["h0.01"] if pen == "M" else []
            pen = "L"
        self.parts.append(
            f'<path d="{" ".join(path)}" fill="none" stroke="{color}" stroke-width="1.8" '
            'stroke-linejoin="round" stroke-linecap="round"/>'
        )

    def legend(self, y: float, names: Sequence[tuple[str, str]]) -> None:
        """What the colours mean, at the right."""
        x = float(WIDTH - RIGHT)
        for name, color in reversed(names):
            x -= 7.5 * len(name)
            self.text(x, y, name)
            x -= 8
            self.parts.append(
                f'<rect x="{x - 14:.1f}" y="{y - 5:.1f}" width="14" height="3" fill="{color}"/>'
            )
            x -= 34

    def done(self) -> str:
        """The drawing."""
        return "\n".join((*self.parts, "</svg>", ""))


def _rows(bands: Sequence[tuple[str, float, float]], seconds: float) -> list[int]:
    """A row for each fault's name, so that names don't lie upon one another."""
    ends: list[float] = []
    rows = []
    for name, begin_s, _ in bands:
        wide = seconds * 7 * len(name) / (WIDTH - LEFT - RIGHT)
        row = next((row for row, end in enumerate(ends) if end <= begin_s), len(ends))
        ends[row : row + 1] = [begin_s + wide]
        rows.append(row)
    return rows


def draw(
    operations: Sequence[Operation], faults: Sequence[Fault] = (), title: str = "chaos run"
) -> str:
    """The picture, as SVG."""
    start_ns, end_ns = span(operations, faults)
    seconds = (end_ns - start_ns) / NS_PER_S
    width_ns = max(NS_PER_S // 10, -(-(end_ns - start_ns) // BUCKETS_MAX))
    run = buckets(operations, start_ns, width_ns)
    picture = _Picture(seconds, title)
    bands = sorted(
        ((n, (b - start_ns) / NS_PER_S, (e - start_ns) / NS_PER_S) for n, b, e in faults),
        key=lambda band: band[1],
    )
    names = list(dict.fromkeys(name for name, _, _ in bands))
    for band, row in zip(bands, _rows(bands, seconds), strict=True):
        picture.band(band, BANDS[names.index(band[0]) % len(BANDS)], row)
    _draw_rates(picture, run)
    _draw_latencies(picture, run)
    picture.text((LEFT + WIDTH - RIGHT) / 2, picture.height - 12, "seconds of the run", "middle")
    return picture.done()


def _draw_rates(picture: _Picture, run: Sequence[Bucket]) -> None:
    marks = nice(max((max(each.rates.values()) for each in run), default=1.0))
    top = marks[-1] or 1.0
    picture.panel(TOP, "operations/s", [(mark / top, number(mark)) for mark in marks])
    for outcome in ("ok", "fail", "info"):
        if any(each.rates[outcome] for each in run):
            rates = [each.rates[outcome] for each in run]
            # A colour lies upon the axis only where it touches something that happened.
            shown = [
                outcome == "ok" or any(rates[max(place - 1, 0) : place + 2])
                for place in range(len(run))
            ]
            points = (
                (picture.x(each.at_s), TOP + PANEL * (1 - rate / top)) if show else None
                for each, rate, show in zip(run, rates, shown, strict=True)
            )
            picture.curve(points, COLORS[outcome])
    words = {"ok": "acknowledged", "fail": "refused", "info": "unknown"}
    legend = [(words[name], COLORS[name]) for name in ("ok", "fail", "info")]
    picture.legend(TOP + PANEL + 34, legend)


def _draw_latencies(picture: _Picture, run: Sequence[Bucket]) -> None:
    top = TOP + PANEL + SPACE
    lows = [each.p50_ms for each in run if each.p50_ms is not None]
    highs = [each.p99_ms for each in run if each.p99_ms is not None]
    marks = decades(min(lows, default=1.0), max(highs, default=10.0))
    low, high = math.log10(marks[0]), math.log10(marks[-1])
    shares = [(math.log10(mark) - low) / (high - low) for mark in marks]
    labels = [number(mark) for mark in marks]
    picture.panel(top, "latency, ms (log)", list(zip(shares, labels, strict=True)))

    def place(at_s: float, value: float | None) -> tuple[float, float] | None:
        if value is None:
            return None
        share = (math.log10(max(value, marks[0])) - low) / (high - low)
        return picture.x(at_s), top + PANEL * (1 - share)

    picture.curve((place(each.at_s, each.p50_ms) for each in run), COLORS["p50"])
    picture.curve((place(each.at_s, each.p99_ms) for each in run), COLORS["p99"])
    picture.legend(top + PANEL + 34, [("p50", COLORS["p50"]), ("p99", COLORS["p99"])])


def span(operations: Sequence[Operation], faults: Sequence[Fault] = ()) -> tuple[int, int]:
    """When the run began and ended, faults included."""
    starts = [each.call_ns for each in operations] + [begin for _, begin, _ in faults]
    ends = [each.return_ns or each.call_ns for each in operations] + [end for *_, end in faults]
    start_ns = min(starts, default=0)
    return start_ns, max(max(ends, default=0), start_ns + 1)


def write_gap_s(operations: Sequence[Operation], begin_ns: int, end_ns: int) -> float:
    """The longest time without an acknowledged write that touches a fault, in seconds."""
    acked = sorted(
        each.return_ns
        for each in operations
        if each.is_write and each.outcome is Outcome.OK and each.return_ns is not None
    )
    start_ns, stop_ns = span(operations)
    moments = [start_ns, *acked, stop_ns]
    first = max(bisect_right(moments, begin_ns) - 1, 0)
    gaps = [0]
    for before, after in zip(moments[first:], moments[first + 1 :], strict=False):
        if before > end_ns:
            break
        gaps.append(after - before)
    return max(gaps) / NS_PER_S


def markdown(
    title: str,
    picture: str,
    operations: Sequence[Operation],
    faults: Sequence[Fault] = (),
    violations: Sequence[Violation] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page; `picture` is the file name of the drawing beside it."""
    start_ns, end_ns = span(operations, faults)
    verdict = f"**{len(violations)} violations.**" if violations else "No violation."
    seconds = (end_ns - start_ns) / NS_PER_S
    lines = [f"# {title}", "", f"{verdict} {len(operations)} operations in {seconds:.1f} s.", ""]
    lines += [f"- {note}" for note in notes] + [""] * bool(notes)
    lines += [f"![throughput and latency over time]({picture})", ""]
    lines += ["| operation | acknowledged | refused | unknown | p50 ms | p99 ms | max ms |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]
    for f in sorted({each.f for each in operations}):
        mine = [each for each in operations if each.f == f]
        counts = Counter(each.outcome for each in mine)
        waits = sorted(
            (each.return_ns - each.call_ns) / NS_PER_MS
            for each in mine
            if each.outcome is Outcome.OK and each.return_ns is not None
        )
        figures = [f"{percentile(waits, share):.2f}" if waits else "" for share in (0.5, 0.99, 1)]
        cells = [f, *(str(counts[outcome]) for outcome in Outcome), *figures]
        lines.append(f"| {' | '.join(cells)} |")
    if faults:
        lines += ["", "| fault | from s | to s | longest time without an acked write, s |"]
        lines += ["|---|--:|--:|--:|"]
    for name, begin, end in sorted(faults, key=lambda each: each[1]):
        times = [(begin - start_ns) / NS_PER_S, (end - start_ns) / NS_PER_S]
        gap = write_gap_s(operations, begin, end)
        lines.append(f"| {name} | {times[0]:.2f} | {times[1]:.2f} | {gap:.2f} |")
    if violations:
        lines += ["", "## Violations", "", "```text", *map(str, violations), "```"]
    return "\n".join((*lines, ""))


def write_report(
    folder: Path,
    name: str,
    operations: Sequence[Operation],
    faults: Sequence[Fault] = (),
    violations: Sequence[Violation] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Writes NAME.md and NAME.svg into a folder; answers the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    title = name.replace("-", " ").replace("_", " ").capitalize()
    (folder / f"{name}.svg").write_text(draw(operations, faults, title))
    page = folder / f"{name}.md"
    page.write_text(markdown(title, f"{name}.svg", operations, faults, violations, notes))
    return page
