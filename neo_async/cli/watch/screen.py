"""The screen of `neo-async watch`: functions from the state to rich renderables.

Their results hold texts and no live objects, so that they may be drawn in another thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from neo_async.base.india import IST
from neo_async.base.text import shown
from neo_async.cli import output
from neo_async.cli.demo.report import latency
from neo_async.cli.output import money, profit, units
from neo_async.cli.watch.lines import bare_units, order_tally
from neo_async.cli.watch.state import Seen, Watched
from neo_async.cli.watch.tables import Column, fitting, panel, table
from neo_async.execution.order import Order
from neo_async.exits.plan import PlanChange
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.model.enums import OrderStatus, Side
from neo_async.model.feed_state import FeedState
from neo_async.model.portfolio import Position
from neo_async.model.ticks import PriceTick, ScripTick

_WIDE = 120
"""Width from which prices and orders are beside positions and feeds, in columns."""
_WIDE_DEPTH = 140
"""The same with five levels of each book, which need more room."""
_RIGHT = 58
"""Smallest width of the right half of a wide screen, in columns."""
_FRAMED = 18
"""Height from which there is room for frames with everything in them, in rows."""
_TITLE, _FRAME, _HEADING = 1, 2, 1
"""Rows of the title, the frame of a panel and the heading of a table."""
_FEEDS = 4
"""Rows of the feeds and the latency, without a frame."""
_RECENT = 1.0
"""Seconds for which a change of price is coloured."""
_STALE = 10.0
"""Seconds without a tick after which its age is yellow."""

_SHORT = {
    OrderStatus.PUT_RECEIVED: "received",
    OrderStatus.VALIDATION_PENDING: "validating",
    OrderStatus.OPEN_PENDING: "pending",
    OrderStatus.TRIGGER_PENDING: "waits for trigger",
    OrderStatus.MODIFY_VALIDATION_PENDING: "modifying",
    OrderStatus.MODIFY_PENDING: "modifying",
    OrderStatus.CANCEL_PENDING: "cancelling",
    OrderStatus.AMO_RECEIVED: "AMO received",
    OrderStatus.AMO_MODIFY_RECEIVED: "AMO modified",
    OrderStatus.AMO_CANCELLED: "AMO cancelled",
}
_STATE_STYLES = {FeedState.LIVE: "green", FeedState.CONNECTING: "yellow", FeedState.WAITING: "red"}


_TICK_COLUMNS = (
    Column("symbol", 8, 0, False),
    Column("last", 10, 0),
    Column("change", 9, 6),
    Column("%", 7, 1),
    Column("bid", 10, 3),
    Column("ask", 10, 3),
    Column("volume", 7, 5),
    Column("age", 5, 2),
)
_DEPTH_COLUMNS = (
    Column("symbol", 8, 0, False),
    Column("last", 10, 0),
    Column("change", 9, 4),
    Column("%", 7, 1),
    Column("bid qty", 8, 0),
    Column("bid", 10, 0),
    Column("ask", 10, 0),
    Column("ask qty", 8, 0),
    Column("volume", 7, 3),
    Column("age", 5, 2),
)
_LEVELS = 5
"""Levels of a book at the level DEPTH."""
_ORDER_COLUMNS = (
    Column("time", 8, 4, False),
    Column("symbol", 8, 0, False),
    Column("side", 4, 1, False),
    Column("filled", 9, 1),
    Column("price", 10, 2),
    Column("average", 10, 5),
    Column("state", 20, 0, False),
)
_POSITION_COLUMNS = (
    Column("symbol", 8, 0, False),
    Column("prod", 4, 3, False),
    Column("net", 7, 0),
    Column("average", 10, 4),
    Column("last", 10, 2),
    Column("realised", 12, 5),
    Column("P&L", 13, 0),
)
_PLAN_COLUMNS = (
    Column("plan", 5, 3, False),
    Column("symbol", 8, 0, False),
    Column("side", 4, 4, False),
    Column("open", 9, 0),
    Column("no exit", 7, 1),
    Column("stop", 10, 1),
    Column("target", 10, 2),
    Column("state", 8, 0, False),
)
_FEED_COLUMNS = (
    Column("feed", 7, 0, False),
    Column("state", 10, 0, False),
    Column("ticks/s", 7, 1),
    Column("lost", 6, 2),
    Column("reconnects", 10, 1),
    Column("last gap", 8, 1),
)


def board(watched: Watched, width: int, height: int) -> RenderableType:
    """Return the whole screen, with this many rows at most."""
    title = _title(watched)
    if height < _FRAMED:
        rows = max(1, height - _TITLE - _HEADING - _FEEDS)
        return Group(title, _ticks(watched, rows, width), _feeds(watched, width))
    if width >= (_WIDE_DEPTH if watched.has_depth else _WIDE):
        return Group(title, _two_columns(watched, width, height - _TITLE))
    panels = _account_panels(watched)
    rows = height - _TITLE - _FEEDS - 1 - (1 + len(panels)) * (_FRAME + _HEADING)
    ticks, *parts = _tick_shares(watched, rows, [wish for wish, _ in panels])
    return Group(
        title,
        _tick_panel(watched, ticks, width),
        *(draw(part, width) for part, (_, draw) in zip(parts, panels, strict=True)),
        _feeds(watched, width),
        _notices(watched, 1),
    )


def _account_panels(watched: Watched) -> list[tuple[int, Callable[[int, int], Panel]]]:
    """Return the panels of orders, of plans where there are any, and of positions: the rows that
    each has, and the function that draws it with so many rows and columns."""
    plans = watched.plans
    panels: list[tuple[int, Callable[[int, int], Panel]]] = [
        (len(watched.orders), lambda rows, width: _order_panel(watched, rows, width)),
        (len(watched.positions), lambda rows, width: _position_panel(watched, rows, width)),
    ]
    if plans:
        panels.insert(1, (len(plans), lambda rows, width: _plan_panel(plans, rows, width)))
    return panels


def _two_columns(watched: Watched, width: int, height: int) -> RenderableType:
    right = max(_RIGHT, width * 3 // 7)
    left = width - right
    rows = height - 2 * (_FRAME + _HEADING)
    ticks, orders = _tick_shares(watched, rows, (len(watched.orders),))
    below = height - _FRAME - _FEEDS - _FRAME
    panels = _account_panels(watched)[1:]
    below -= len(panels) * (_FRAME + _HEADING)
    notices, *parts = shares(below, (min(8, len(watched.notices)), *(wish for wish, _ in panels)))
    grid = Table.grid()
    grid.add_column(width=left)
    grid.add_column(width=right)
    grid.add_row(
        Group(_tick_panel(watched, ticks, left), _order_panel(watched, orders, left)),
        Group(
            *(draw(part, right) for part, (_, draw) in zip(parts, panels, strict=True)),
            panel(_feeds(watched, right - 4), "Feeds"),
            panel(_notices(watched, notices), "Events"),
        ),
    )
    return grid


def _tick_shares(watched: Watched, rows: int, wishes: Sequence[int]) -> list[int]:
    """Divide rows among the prices and the other parts. One book at least is shown whole."""
    count = len(watched.instruments)
    if not watched.has_depth or not count:
        return shares(rows, (count, *wishes))
    ticks = min(count * _LEVELS, max(_LEVELS + count - 1, rows // 2), rows - len(wishes))
    return [ticks, *shares(rows - ticks, wishes)]


def shares(rows: int, wishes: Sequence[int]) -> list[int]:
    """Divide rows among the parts: at least one each, as many as each wants while there are enough,
    and equally otherwise. The last part gets the rest."""
    given = [1] * len(wishes)
    left = rows - len(wishes)
    while left > 0:
        wishing = [one for one, wish in enumerate(wishes) if given[one] < wish]
        for one in wishing[:left]:
            given[one] += 1
            left -= 1
        if not wishing:
            given[-1] += left
            break
    return given


# --- panels ---------------------------------------------------------------------------------------


def _title(watched: Watched) -> RenderableType:
    title = Table.grid(expand=True)
    title.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    title.add_column(justify="right", no_wrap=True)
    session = watched.neo.session
    name = Text(" neo-async watch", style="bold")
    name.append("  paper" if watched.neo.is_paper else "  LIVE", style=_mode_style(watched))
    name.append(f"  {shown(session.ucc)} at {shown(session.base_url)}", style="bright_black")
    title.add_row(name, f" {datetime.now(IST):%H:%M:%S} IST · Ctrl-C quits ")
    return title


def _mode_style(watched: Watched) -> str:
    return "green" if watched.neo.is_paper else "bold red"


def _tick_panel(watched: Watched, rows: int, width: int) -> Panel:
    count = len(watched.instruments)
    return panel(_ticks(watched, rows, width - 4), f"Prices {count}{_hidden(count, rows)}")


def _ticks(watched: Watched, rows: int, room: int) -> Table:
    # Indices have neither quotes nor volume.
    has_books = any(isinstance(seen.tick, ScripTick) for seen in watched.seen.values())
    of_books = {"bid", "ask", "volume", "bid qty", "ask qty"}
    columns = _DEPTH_COLUMNS if watched.has_depth else _TICK_COLUMNS
    lines: list[dict[str, Text]] = []
    instruments = watched.instruments[:rows]
    for position, instrument in enumerate(instruments):
        seen = watched.seen.get(instrument)
        cells = _tick_cells(seen) if seen else {"last": Text("no tick", style="bright_black")}
        lines.append({"symbol": Text(watched.label(instrument))} | cells)
        if watched.has_depth:
            needed = len(instruments) - position - 1
            is_whole = rows - len(lines) - needed >= _LEVELS - 1
            lines += _book_lines(seen, lines[-1])[: _LEVELS - 1 if is_whole else 0]
    chosen = [one for one in columns if has_books or one.heading not in of_books]
    return table(fitting(chosen, lines, room), lines, rows, wide="symbol")


def _tick_cells(seen: Seen) -> dict[str, Text]:
    tick, age = seen.tick, seen.age
    moved = ""
    if seen.moved and time.monotonic() - seen.moved_at < _RECENT:
        moved = "bold green" if seen.moved > 0 else "bold red"
    cells = {
        "last": Text(money(tick.last_price), style=moved),
        "change": _profit(tick.change),
        "%": _profit(tick.change_percent),
        "age": Text(_age(age), style="yellow" if age > _STALE else "bright_black"),
    }
    if isinstance(tick, ScripTick):
        cells["volume"] = Text(compact(tick.volume))
        for name, side in (("bid", tick.bids), ("ask", tick.asks)):
            cells[name] = Text(money(side[0].price) if side and side[0].quantity else "-")
    return cells


def _book_lines(seen: Seen | None, best: dict[str, Text]) -> list[dict[str, Text]]:
    """Return the levels of a book below the best one, whose quantities are added to `best`."""
    if seen is None or not isinstance(seen.tick, ScripTick):
        return []
    levels: list[dict[str, Text]] = [best, *({} for _ in range(_LEVELS - 1))]
    for name, side in (("bid", seen.tick.bids), ("ask", seen.tick.asks)):
        for cells, row in zip(levels, side, strict=False):
            if row.quantity:
                cells[name] = Text(money(row.price))
                cells[f"{name} qty"] = Text(compact(row.quantity))
    return levels[1:]


def _order_panel(watched: Watched, rows: int, width: int) -> Panel:
    orders = watched.orders
    lines = [_order_cells(order) for order in orders[:rows]]
    columns = fitting(_ORDER_COLUMNS, lines, width - 4)
    room = width - 4 - sum(one.width + 1 for one in columns if one.heading != "state")
    for order, line in zip(orders, lines, strict=False):
        line["state"] = _trail(order, room)
    title = _whole_words(order_tally(watched).capitalize(), width - 18) + _hidden(len(orders), rows)
    return panel(table(columns, lines, rows, wide="state"), title)


def _order_cells(order: Order) -> dict[str, Text]:
    buys = order.side == Side.BUY
    changed = datetime.fromtimestamp(order.updated_ns / 1e9, IST) if order.updated_ns else None
    return {
        "time": Text(f"{changed:%H:%M:%S}" if changed else ""),
        "symbol": Text(shown(order.symbol)),
        "side": Text("buy" if buys else "sell", style="blue" if buys else "magenta"),
        "filled": Text(f"{order.filled_quantity:,}/{order.quantity:,}"),
        "price": Text(money(float(order.price)) if order.price else "-"),
        "average": Text(money(order.average_price) if order.average_price else "-"),
    }


def _trail(order: Order, room: int) -> Text:
    """Return the latest states of an order that fit."""
    steps: list[tuple[str, str]] = []
    for change in order.history[1:]:  # the first is assumed
        name = _SHORT.get(change.status, change.status.value)
        if change.status is OrderStatus.UNKNOWN:
            name = shown(order.status_text)
        if not steps or steps[-1][0] != name:
            steps.append((name, output.status(change.status.value).style))
    if order.reject_reason and steps:
        steps[-1] = (f"{steps[-1][0]}: {shown(order.reject_reason)}", steps[-1][1])
    text = Text()
    for name, style in reversed(steps):
        if text and text.cell_len + len(name) + 3 > room:
            break
        step = Text(name, style=style)
        if text:
            step.append(" → ", style="bright_black")
        text = step.append_text(text)
    return text


def _plan_panel(plans: Sequence[PlanChange], rows: int, width: int) -> Panel:
    lines = [_plan_cells(plan) for plan in plans[:rows]]
    columns = fitting(_PLAN_COLUMNS, lines, width - 4)
    title = Text(f"Plans {len(plans)}{_hidden(len(plans), rows)}")
    title.append(bare_units(plans), style="bold red")
    return panel(table(columns, lines, rows, wide="state"), title)


def _plan_cells(plan: PlanChange) -> dict[str, Text]:
    state = f"{plan.status}: {shown(plan.reason)}" if plan.reason else plan.status.value
    return {
        "plan": Text(plan.plan, style="bright_black"),
        "symbol": Text(shown(plan.symbol)),
        "side": Text("buy" if plan.side == Side.BUY else "sell"),
        "open": Text(f"{plan.open_quantity:,}/{plan.quantity:,}"),
        "no exit": Text(f"{plan.unprotected:,}" if plan.unprotected else "-", style="red"),
        "stop": Text(money(float(plan.stop)) if plan.stop is not None else "-"),
        "target": Text(money(float(plan.target)) if plan.target is not None else "-"),
        "state": Text(state, style="red" if plan.reason else "cyan"),
    }


def _position_panel(watched: Watched, rows: int, width: int) -> Panel:
    positions = watched.positions
    lines = [_position_cells(position) for position in positions[:rows]]
    columns = fitting(_POSITION_COLUMNS, lines, width - 4)
    title = Text(f"Positions {len(positions)}{_hidden(len(positions), rows)}")
    live = watched.neo.portfolio.live
    if positions:
        title.append(" · P&L ").append_text(_profit(live.total().pnl))
    if not live.is_current:
        title.append(" · not current", style="yellow")
    return panel(table(columns, lines, rows, wide="symbol"), title)


def _position_cells(position: Position) -> dict[str, Text]:
    return {
        "symbol": Text(shown(position.symbol)),
        "prod": Text(shown(position.product), style="bright_black"),
        "net": Text(units(position.net_quantity)),
        "average": Text(money(position.average_price)),
        "last": Text(money(position.last_price)),
        "realised": _profit(position.realised),
        "P&L": _profit(position.pnl),
    }


def _feeds(watched: Watched, width: int) -> RenderableType:
    """Return three rows of feeds and one of latency."""
    market = _feed_cells("market", watched.feed) | {
        "ticks/s": Text(f"{watched.ticks_per_second:,.0f}"),
        "lost": Text(compact(watched.feed.lost)),
    }
    lines = [market, _feed_cells("orders", watched.order_feed)]
    return Group(table(fitting(_FEED_COLUMNS, lines, width), lines, 2), _latency(watched))


def _feed_cells(name: str, feed: MarketFeed[PriceTick] | OrderFeed) -> dict[str, Text]:
    return {
        "feed": Text(name),
        "state": Text(feed.state, style=_STATE_STYLES.get(feed.state, "")),
        "reconnects": Text(f"{feed.reconnects:,}", style="yellow" if feed.reconnects else ""),
        "last gap": Text("-" if feed.last_gap is None else f"{feed.last_gap:,.1f} s"),
    }


def _latency(watched: Watched) -> Text:
    text = Text("late  ", style="bright_black", no_wrap=True, overflow="ellipsis")
    # The exchange stamps ticks in whole seconds: more digits would mean nothing.
    ticks, updates = latency(watched.tick_delays), latency(watched.update_delays)
    for name, figures in (
        (
            "ticks",
            f"p50 {ticks.p50 / 1000:.1f} max {ticks.max / 1000:.1f} s"
            if watched.tick_delays
            else "-",
        ),
        (
            "order updates",
            f"p50 {updates.p50:,.1f} p99 {updates.p99:,.1f} ms" if watched.update_delays else "-",
        ),
    ):
        text.append(f"{name} ", style="bright_black")
        text.append(f"{figures}  ", style="default")
    return text


def _notices(watched: Watched, count: int) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    notices = list(watched.notices)[-count:]
    for position, (at, what) in enumerate(notices):
        if position:
            text.append("\n")
        text.append(f"{datetime.fromtimestamp(at, IST):%H:%M:%S} ", style="bright_black")
        text.append(what)
    return text.append("\n" * (count - max(1, len(notices))))


# --- parts ----------------------------------------------------------------------------------------


def compact(number: int) -> str:
    """Return a number in six letters: `12,345`, `250k`, `1.235M`."""
    if number < 100_000:
        return f"{number:,}"
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number / 1000:.0f}k"


def _age(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 100:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 6000 else f"{seconds / 3600:.0f}h"


def _profit(amount: float | None) -> Text:
    cell = profit(amount)
    return Text(cell.text, style=cell.style)


def _whole_words(text: str, room: int) -> str:
    """Return the text, or the part of it up to the last comma that fits."""
    return text if len(text) <= room else f"{text[: room - 2].rpartition(',')[0]} …"


def _hidden(count: int, rows: int) -> str:
    return f" · {count - rows} more" if count > rows else ""
