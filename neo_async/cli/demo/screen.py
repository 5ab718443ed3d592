"""The demo's screen: pure functions from what is known to something that rich can draw."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from neo_async.cli.demo.demo_order import DemoOrder
from neo_async.cli.demo.report import latency
from neo_async.cli.demo.run import DemoRun
from neo_async.cli.output import money, profit, profit_style, units
from neo_async.model.enums import Side

_WIDE = 112
"""Columns from which orders and the rest stand side by side."""
_NARROW = 70
"""Columns below which tables lose what can be done without."""
_RIGHT = 48
"""Columns that the right half takes on a wide screen."""
_TITLE, _FRAME, _HEADING = 1, 2, 1
"""Rows that the title, the frame of a panel and the heading of a table take."""
_WITH_LAST = 48
"""Columns from which positions show the last price."""
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


def board(demo_run: DemoRun, width: int, height: int) -> RenderableType:
    """Return a board of the whole demo, in no more than this many rows."""
    rows = height - 1  # a terminal keeps the last line for the cursor
    if width >= _WIDE:
        left = Group(
            _orders(demo_run, rows - _TITLE - _FRAME - _HEADING - 5, width - _RIGHT),
            _events(demo_run, 5),
        )
        right = Group(
            _positions(demo_run, rows - _TITLE - _FRAME - _HEADING - 4 - 9, _RIGHT),
            _pace(demo_run),
            _latency(demo_run, _histogram),
        )
        return Group(_title(demo_run), _beside(left, right, width - _RIGHT, _RIGHT))
    lower = 9
    orders = _orders(demo_run, max(3, rows - _TITLE - _FRAME - _HEADING - lower - 1), width)
    meters = Group(_pace(demo_run), _latency(demo_run, _columns))
    if width < _NARROW:
        return Group(_title(demo_run), orders, meters, _events(demo_run, 1))
    half = width // 2
    positions = _positions(demo_run, lower - _FRAME - _HEADING, width - half)
    below = _beside(positions, meters, width - half, half)
    return Group(_title(demo_run), orders, below, _events(demo_run, 1))


def final_board(demo_run: DemoRun, width: int) -> RenderableType:
    """Return a board of every order and position, however long that gets."""
    return Group(
        _orders(demo_run, len(demo_run.orders), width),
        _positions(demo_run, len(demo_run.positions), width),
        _latency(demo_run, _histogram),
    )


def _beside(
    left: RenderableType, right: RenderableType, left_width: int, right_width: int
) -> RenderableType:
    grid = Table.grid()
    grid.add_column(width=left_width)
    grid.add_column(width=right_width)
    grid.add_row(left, right)
    return grid


def _title(demo_run: DemoRun) -> RenderableType:
    title = Table.grid(expand=True)
    title.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    title.add_column(justify="right", no_wrap=True, min_width=8)
    name = Text(" neo-async demo", style="bold")
    name.append(f"  {demo_run.address}, seed {demo_run.seed}", style="bright_black")
    title.add_row(name, f"{demo_run.elapsed:4.1f} s ")
    return title


def _orders(demo_run: DemoRun, rows: int, width: int) -> Panel:
    lines = _most_recent(demo_run.orders, rows)
    filled = [f"{line.filled:,}/{line.request.quantity:,}" for line in lines]
    with_price = width >= _NARROW
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("symbol", no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("side", no_wrap=True)
    if with_price:
        table.add_column("price", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column("filled", justify="right", no_wrap=True)
    symbols = max((len(line.request.symbol) for line in lines), default=8)
    fixed = symbols + 4 + 9 * with_price + max(map(len, filled), default=6)
    room = width - 4 - fixed - 2 * (4 if with_price else 3)
    now = time.perf_counter()
    for line, done in zip(lines, filled, strict=True):
        cells: list[RenderableType] = [line.request.symbol, _side(line), _trail(line, room), done]
        if with_price:
            price = line.order.price if line.order and line.order.price else line.request.price
            cells.insert(2, money(float(str(price))))
        table.add_row(*cells, style="bold" if now - line.changed_at < _RECENT else "")
    for _ in range(rows - len(lines)):
        table.add_row("")
    return _panel(table, _tally(demo_run))


def _side(line: DemoOrder) -> Text:
    buys = line.request.side is Side.BUY
    return Text("buy" if buys else "sell", style="blue" if buys else "magenta")


def _most_recent(lines: list[DemoOrder], count: int) -> list[DemoOrder]:
    """Return the orders that changed last, in the order in which they were placed."""
    if len(lines) <= count:
        return lines
    chosen = sorted(lines, key=lambda line: line.changed_at)[-count:]
    return [line for line in lines if line in chosen]


def _tally(demo_run: DemoRun) -> str:
    states = [line.state for line in demo_run.orders]
    parts = [f"Orders {len(demo_run.orders)}"]
    parts += [
        f"{name} {states.count(name)}"
        for name in ("queued", "open", "complete", "cancelled", "rejected")
        if name in states
    ]
    return " · ".join(parts)


def _trail(line: DemoOrder, room: int) -> Text:
    """Return the newest states of an order, as far as there is room."""
    text = Text()
    for state in reversed(line.trail):
        if text and text.cell_len + len(state) + 3 > room:
            break
        step = Text(state, style=_STYLES.get(state, ""))
        if text:
            step.append(" → ", style="bright_black")
        text = step.append_text(text)
    return text


def _positions(demo_run: DemoRun, rows: int, width: int) -> Panel:
    """Return a panel of positions with as many columns as fit."""
    with_last, with_average = width >= _WITH_LAST, width >= _NARROW
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("symbol", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("net", justify="right", no_wrap=True)
    if with_average:
        table.add_column("average", justify="right", no_wrap=True)
    if with_last:
        table.add_column("last", justify="right", no_wrap=True)
    table.add_column("P&L", justify="right", no_wrap=True)
    ordered = sorted(demo_run.positions, key=lambda position: -abs(position.pnl or 0.0))
    for position in ordered[:rows]:
        symbol = Text(position.symbol)
        symbol.append(f" {position.product}", style="bright_black")
        pnl = profit(position.pnl)
        cells: list[RenderableType] = [symbol, units(position.net_quantity)]
        if with_average:
            cells.append(money(position.average_price))
        if with_last:
            cells.append(money(position.last_price))
        cells.append(Text(pnl.text, style=pnl.style))
        table.add_row(*cells)
    for _ in range(rows - len(ordered)):
        table.add_row("")
    title = Text(f"Positions {len(demo_run.positions)}" if demo_run.positions else "Positions")
    known = [position.pnl for position in demo_run.positions if position.pnl is not None]
    if known:
        title.append(" · P&L ")
        title.append(profit(sum(known)).text, style=profit_style(sum(known)))
    return _panel(table, title)


def _pace(demo_run: DemoRun) -> Panel:
    started = min(demo_run.starts_within(1.0), demo_run.limits.total)
    gauge = Text("last second ")
    gauge.append("■" * started, style="green" if started < demo_run.limits.total else "yellow")
    gauge.append("·" * (demo_run.limits.total - started), style="bright_black")
    gauge.append(f" {started}/{demo_run.limits.total}")
    waiting = Text("waiting     ")
    waiting.append("■" * min(demo_run.waiting, 16), style="red")
    waiting.append(f" {demo_run.waiting}")
    return _panel(Group(gauge, waiting), f"Limiter: {demo_run.limits.total} a second")


def _latency(demo_run: DemoRun, distribution: Callable[[list[float]], RenderableType]) -> Panel:
    values = demo_run.acknowledgements
    row = latency(values)
    figures = Text(
        f"p50 {row.p50:.1f} p90 {row.p90:.1f} p99 {row.p99:.1f} max {row.max:.1f} ms",
        no_wrap=True,
        overflow="ellipsis",
    )
    return _panel(Group(figures, distribution(values)), "Placements acknowledged within")


_BOUNDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Milliseconds at which one class of the histogram ends and the next begins."""


def _classes(seconds: list[float]) -> list[tuple[str, int]]:
    labels = [f"<{bound:g}" for bound in _BOUNDS] + [f"≥{_BOUNDS[-1]:g}"]
    counts = [0] * len(labels)
    for value in seconds:
        counts[sum(value * 1000 >= bound for bound in _BOUNDS)] += 1
    return list(zip(labels, counts, strict=True))


def _histogram(seconds: list[float]) -> RenderableType:
    """Return a histogram with horizontal bars, one a row."""
    classes = _classes(seconds)
    most = max(1, *(count for _, count in classes))
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", min_width=7)
    table.add_column()
    for label, count in classes:
        bar = Text("█" * -(-count * 24 // most), style="cyan")
        bar.append(f" {count}" if count else "", style="bright_black")
        table.add_row(f"{label} ms", bar)
    return table


def _columns(seconds: list[float]) -> RenderableType:
    """Return a histogram with vertical bars in one row, and their labels in another."""
    classes = _classes(seconds)
    most = max(1, *(count for _, count in classes))
    bars = " ".join(_BARS[-(-count * 8 // most)] * 4 for _, count in classes)
    labels = " ".join(f"{label:^4}" for label, _ in classes) + " ms"
    return Group(Text(bars, style="cyan", no_wrap=True), Text(labels, style="bright_black"))


def _panel(content: RenderableType, title: str | Text) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, padding=(0, 1))


def _events(demo_run: DemoRun, count: int) -> RenderableType:
    text = Text(no_wrap=True, overflow="ellipsis")
    shown = demo_run.events[-count:]
    for position, (elapsed, what) in enumerate(shown):
        if position:
            text.append("\n")
        text.append(f" {elapsed:4.1f} s  ", style="bright_black")
        text.append(what)
    text.append("\n" * (count - len(shown)))
    return text
