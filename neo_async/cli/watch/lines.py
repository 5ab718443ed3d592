"""The output of `neo-async watch` without a screen: a line of text, or a JSON object."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from neo_async.base.india import IST
from neo_async.cli import output
from neo_async.cli.demo.report import latency
from neo_async.cli.exits_output import plan_fields
from neo_async.cli.output import money, profit
from neo_async.cli.watch.state import Watched
from neo_async.execution.order import Order
from neo_async.exits.plan import PlanChange
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.model.enums import OrderStatus
from neo_async.model.ticks import PriceTick, ScripTick


def plain_line(watched: Watched) -> str:
    """Return a line with feeds, prices, orders by state, and P&L."""
    parts = [
        f"{datetime.now(IST):%H:%M:%S} market feed {watched.feed.state} "
        f"{watched.ticks_per_second:.0f}/s, order feed {watched.order_feed.state}"
    ]
    for instrument in watched.instruments:
        seen = watched.seen.get(instrument)
        price = "no tick yet"
        if seen is not None:
            price = f"{money(seen.tick.last_price)} {seen.tick.change_percent:+z.2f}%"
        parts.append(f"{watched.label(instrument)} {price}")
    parts.append(order_tally(watched))
    if plans := watched.plans:
        parts.append(f"plans {len(plans)}{bare_units(plans)}")
    parts.append(f"P&L {profit(watched.neo.portfolio.live.total().pnl).text}")
    return " | ".join(parts)


def order_tally(watched: Watched) -> str:
    """Return the number of orders by state: `orders 3: open 1, complete 2`."""
    states = Counter(order.status for order in watched.orders)
    counts = ", ".join(f"{state} {states[state]}" for state in OrderStatus if states[state])
    return f"orders {states.total()}: {counts}" if counts else "orders 0"


def bare_units(plans: Iterable[PlanChange]) -> str:
    """Return how many units of plans lack an exit order: `, 10 without an exit`."""
    units = sum(plan.unprotected for plan in plans)
    return f", {units:,} without an exit" if units else ""


def snapshot(watched: Watched) -> dict[str, Any]:
    """Return everything as a JSON object, with the structs' own field names."""
    live = watched.neo.portfolio.live
    return {
        "time": time.time(),
        "market_feed": _feed(watched.feed)
        | {
            "ticks": watched.feed.ticks,
            "ticks_per_second": round(watched.ticks_per_second, 1),
            "lost": watched.feed.lost,
            "subscriptions": watched.feed.subscriptions,
        },
        "order_feed": _feed(watched.order_feed),
        "latency_ms": {
            "ticks": _latency(watched.tick_delays),
            "order_updates": _latency(watched.update_delays),
        },
        "ticks": [_tick(watched, instrument) for instrument in watched.instruments],
        "orders": [_order(order) for order in watched.orders],
        "positions": [
            {name: value for name, value in output.plain(one).items() if name != "row"}
            for one in watched.positions
        ],
        "plans": [plan_fields(plan) for plan in watched.plans],
        "positions_are_current": live.is_current,
        "pnl": live.total().pnl,
    }


def _feed(feed: MarketFeed[PriceTick] | OrderFeed) -> dict[str, Any]:
    return {
        "state": feed.state,
        "reconnects": feed.reconnects,
        "stalls": feed.stalls,
        "last_gap": feed.last_gap,
    }


def _latency(delays: Iterable[float]) -> dict[str, Any] | None:
    """Return the latency; None without a measurement."""
    values = list(delays)
    fields: dict[str, Any] = output.plain(latency(values))
    return fields if values else None


def _tick(watched: Watched, instrument: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"instrument": instrument, "symbol": watched.label(instrument)}
    seen = watched.seen.get(instrument)
    if seen is None:
        return fields | {"last_price": None}
    tick = seen.tick
    fields |= {
        "last_price": tick.last_price,
        "change": tick.change,
        "change_percent": tick.change_percent,
        "age": round(seen.age, 3),
    }
    if isinstance(tick, ScripTick):
        fields |= {
            "volume": tick.volume,
            "bids": output.plain(list(tick.bids)),
            "asks": output.plain(list(tick.asks)),
        }
    return {name: _finite(value) for name, value in fields.items()}


def _order(order: Order) -> dict[str, Any]:
    return {
        "number": order.number,
        "segment": order.segment,
        "symbol": order.symbol,
        "side": order.side,
        "quantity": order.quantity,
        "filled_quantity": order.filled_quantity,
        "product": order.product,
        "order_type": order.order_type,
        "price": None if order.price is None else str(float(order.price)),
        "trigger": None if order.trigger is None else str(float(order.trigger)),
        "average_price": order.average_price or None,
        "status": order.status,
        "status_text": order.status_text,
        "reject_reason": order.reject_reason,
        "updated_ns": order.updated_ns,
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
