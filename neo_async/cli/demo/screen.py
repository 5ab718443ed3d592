"""The demo's screen: pure functions from what is known to something that rich can draw."""

from __future__ import annotations

import time

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from neo_async.cli.demo.play import Line, Play
from neo_async.cli.demo.report import latency
from neo_async.cli.output import money, profit, profit_style
from neo_async.model.enums import Side

_WIDE = 112
"""Columns from which orders and the rest stand side by side."""
_NARROW = 70
"""Columns below which tables lose what can be done without."""
_SIDE_BY_SIDE = 52
"""Columns that the right half takes on a wide screen."""
_RECENT = 0.8
"""Seconds for which a change is shown in bold."""
_BARS = " ▁▂▃▄▅▆▇█"

_STYLES = {
    "complete": "green",
    "open": "cyan",
    "waits for trigger": "cyan",
    "rejected": "red",
    "not sent": "red",
    "failed": "red",
    "cancelled": "bright_black",
    "modified": "yellow",
    "queued": "bright_black",
    "accepted": "bright_black",
}


def board(play: Play, width: int, height: int) -> RenderableType:
    """Everything at once, in no more than this many rows."""
    room = height - 2  # the title, and the line below that a terminal keeps for the cursor
    if width >= _WIDE:
        grid = Table.grid(expand=True)
        grid.add_column(width=width - _SIDE_BY_SIDE)
        grid.add_column(width=_SIDE_BY_SIDE)
        meters = [_pace(play), _latency(play)]
        right = Group(_positions(play, max(2, room - 19), narrow=True), *meters)
        events = 4
        left = Group(_orders(play, room - events - 5, narrow=False), _events(play, events))
        grid.add_row(left, right)
        return Group(_title(play), grid)
    narrow = width < _NARROW
    if narrow:
        body: list[RenderableType] = [_orders(play, max(3, room - 15), narrow=True)]
        return Group(_title(play), *body, _pace(play), _latency(play, bars=False), _events(play, 1))
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(_positions(play, 5, narrow=True), Group(_pace(play), _latency(play, bars=False)))
    return Group(
        _title(play), _orders(play, max(3, room - 15), narrow=False), grid, _events(play, 1)
    )


def final_board(play: Play, width: int) -> RenderableType:
    """All orders and positions, however long that gets."""
    narrow = width < _NARROW
    return Group(
        _orders(play, len(play.lines), narrow=narrow, title="Orders"),
        _positions(play, len(play.positions), narrow=narrow),
        _latency(play),
    )


def _title(play: Play) -> RenderableType:
    title = Table.grid(expand=True)
    title.add_column(no_wrap=True, overflow="ellipsis")
    title.add_column(justify="right", no_wrap=True)
    name = Text(" neo-async demo", style="bold")
    name.append(f"  exchange {play.exchange.login_url}, seed {play.seed}", style="bright_black")
    title.add_row(name, f"{play.elapsed:4.1f} s ")
    return title


def _orders(play: Play, rows: int, *, narrow: bool, title: str = "") -> Panel:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False, show_header=True)
    table.add_column("symbol", no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("side", no_wrap=True)
    if not narrow:
        table.add_column("price", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column("filled", justify="right", no_wrap=True)
    now = time.perf_counter()
    for line in _most_recent(play.lines, rows):
        request = line.request
        is_new = now - line.changed_at < _RECENT
        cells: list[RenderableType] = [
            request.symbol,
            Text(
                "buy" if request.side is Side.BUY else "sell",
                style="blue" if request.side is Side.BUY else "magenta",
            ),
            _trail(line, 1 if narrow else 3),
            f"{line.filled:,}/{request.quantity:,}",
        ]
        if not narrow:
            price = line.order.price if line.order and line.order.price else request.price
            cells.insert(2, money(float(str(price))))
        table.add_row(*cells, style="bold" if is_new and not title else "")
    return _panel(table, title or _tally(play))


def _most_recent(lines: list[Line], count: int) -> list[Line]:
    """Those that changed last, in the order in which they were placed."""
    if len(lines) <= count:
        return lines
    chosen = sorted(lines, key=lambda line: line.changed_at)[-count:]
    return [line for line in lines if line in chosen]


def _tally(play: Play) -> str:
    states = [line.trail[-1] for line in play.lines]
    parts = [f"Orders {len(play.lines)}"]
    parts += [
        f"{name} {states.count(name)}"
        for name in ("queued", "open", "complete", "cancelled", "rejected")
        if name in states
    ]
    return " · ".join(parts)


def _trail(line: Line, length: int) -> Text:
    text = Text()
    for state in line.trail[-length:]:
        if text:
            text.append(" → ", style="bright_black")
        text.append(state, style=_STYLES.get(state, ""))
    return text


def _positions(play: Play, rows: int, *, narrow: bool) -> Panel:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("symbol", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("net", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("average", justify="right", no_wrap=True)
    table.add_column("last", justify="right", no_wrap=True)
    table.add_column("P&L", justify="right", no_wrap=True)
    ordered = sorted(play.positions, key=lambda position: -abs(position.pnl or 0.0))
    for position in ordered[:rows]:
        pnl = profit(position.pnl)
        cells: list[RenderableType] = [
            position.symbol,
            f"{position.net_quantity:,}",
            money(position.last_price),
            Text(pnl.text, style=pnl.style),
        ]
        if not narrow:
            cells.insert(2, money(position.average_price))
        table.add_row(*cells)
    for _ in range(rows - len(ordered)):
        table.add_row("")
    known = [position.pnl for position in play.positions if position.pnl is not None]
    title = Text("Positions")
    if known:
        title.append(f" {len(play.positions)} · P&L ")
        title.append(f"{sum(known):+,.2f}", style=profit_style(sum(known)))
    return _panel(table, title)


def _pace(play: Play) -> Panel:
    started = min(play.starts_within(1.0), play.limits.total)
    gauge = Text("last second ")
    gauge.append("■" * started, style="green" if started < play.limits.total else "yellow")
    gauge.append("·" * (play.limits.total - started), style="bright_black")
    gauge.append(f" {started}/{play.limits.total}")
    waiting = Text("waiting     ")
    waiting.append("■" * min(play.waiting, 16), style="red")
    waiting.append(f" {play.waiting}")
    return _panel(Group(gauge, waiting), f"Limiter: {play.limits.total} a second")


def _latency(play: Play, *, bars: bool = True) -> Panel:
    values = play.acknowledgements
    if not values:
        body: RenderableType = Text("nothing placed yet", style="bright_black")
    else:
        row = latency(values)
        figures = Text(
            f"p50 {row.p50:.1f}  p90 {row.p90:.1f}  p99 {row.p99:.1f}  max {row.max:.1f} ms"
        )
        body = Group(figures, _histogram(values)) if bars else Group(figures, _sparkline(values))
    return _panel(body, "Placement acknowledged")


_BOUNDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Milliseconds at which one class of the histogram ends and the next begins."""


def _classes(seconds: list[float]) -> list[tuple[str, int]]:
    labels = [f"<{bound:g}" for bound in _BOUNDS] + [f"≥{_BOUNDS[-1]:g}"]
    counts = [0] * len(labels)
    for value in seconds:
        counts[sum(value * 1000 >= bound for bound in _BOUNDS)] += 1
    return list(zip(labels, counts, strict=True))


def _histogram(seconds: list[float]) -> Table:
    classes = _classes(seconds)
    most = max(count for _, count in classes)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", min_width=7)
    table.add_column()
    for label, count in classes:
        bar = Text("█" * -(-count * 24 // most), style="cyan")
        bar.append(f" {count}" if count else "", style="bright_black")
        table.add_row(f"{label} ms", bar)
    return table


def _sparkline(seconds: list[float]) -> Text:
    classes = _classes(seconds)
    most = max(count for _, count in classes)
    text = Text()
    for label, count in classes:
        text.append(f"{label} ", style="bright_black")
        text.append(_BARS[-(-count * 8 // most)] + " ", style="cyan")
    return text


def _panel(content: RenderableType, title: str | Text) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, padding=(0, 1))


def _events(play: Play, count: int) -> RenderableType:
    text = Text(no_wrap=True, overflow="ellipsis")
    shown = play.events[-count:]
    for position, (elapsed, what) in enumerate(shown):
        if position:
            text.append("\n")
        text.append(f" {elapsed:4.1f} s  ", style="bright_black")
        text.append(what)
    text.append("\n" * (count - len(shown)))
    return text
