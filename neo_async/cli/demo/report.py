"""The report of the demo, checked against the exchange's own records."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from neo_async.cli.demo.bracket import BracketReport
from neo_async.cli.demo.demo_order import DemoOrder
from neo_async.config import RateLimits
from neo_async.model.enums import OrderStatus, parse_status
from neo_async.model.orders import Trade
from neo_async.model.portfolio import Position

if TYPE_CHECKING:
    from rich.table import Table


N = TypeVar("N", int, float)


class LedgerEntry(msgspec.Struct, frozen=True):
    """An order as the exchange's own ledger has it."""

    number: str
    client_tag: str
    state: str
    quantity: int
    filled_quantity: int
    arrivals: int


class ServerRequest(msgspec.Struct, frozen=True):
    time: float
    path: str

    @property
    def is_order(self) -> bool:
        return self.path.endswith(("/order/rule/ms/place", "/order/vr/modify", "/order/cancel"))


class Records(msgspec.Struct, frozen=True):
    """The exchange's records of the run."""

    ledger: list[LedgerEntry]
    requests: list[ServerRequest]
    """Requests that the exchange's rate limit counts."""

    @classmethod
    def read(cls, ledger: bytes, requests: bytes, *, base: str) -> Records:
        """Decode the records. `base` is the path below which calls are limited: logins and streams
        are not."""
        arrived = msgspec.json.decode(requests, type=list[ServerRequest])
        return cls(
            msgspec.json.decode(ledger, type=list[LedgerEntry]),
            [request for request in arrived if request.path.startswith(f"{base}/")],
        )


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a run of the demo, as the client saw it."""

    seed: int
    limits: RateLimits
    orders: list[DemoOrder]
    modified: int
    refusal: str
    """Error of the order that was stopped before sending."""
    bracket: BracketReport | None
    trades: list[Trade]
    positions: list[Position]
    acknowledgements: list[float]
    """Seconds from sending to acknowledgement of each placement."""
    pauses: int
    """Pauses of the limiter after an answer 429."""
    problems: list[str]
    seconds: float


class OrderCounts(msgspec.Struct, frozen=True, kw_only=True):
    placed: int
    modified: int
    filled: int
    """Orders filled completely."""
    cancelled: int
    rejected: int
    working: int
    stopped_before_sending: int


class Fills(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    units: int
    value: float


class ProfitAndLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Over all positions; None where one of them cannot be known."""

    total: float | None
    realised: float | None
    unrealised: float | None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from handing a placement to the socket to its acknowledgement."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The most requests in any window of one second, as the exchange saw them arrive."""

    limit_orders: int
    limit_total: int
    busiest_second_orders: int
    busiest_second_total: int
    refused: int
    """Number of answers with HTTP 429."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    instruments: list[str]
    orders: OrderCounts
    rejections: dict[str, str]
    """Order number to reason."""
    stopped: str
    """Error of the order that was never sent."""
    bracket: BracketReport | None
    """The exit plan; None when it did not come to its end."""
    fills: Fills
    pnl: ProfitAndLoss
    latency_ms: Latency
    pace: Pace
    checks: list[str]
    """Checks that passed."""
    problems: list[str]
    """Checks that failed; empty when all is well."""
    seconds: float


def make_report(results: Results, records: Records) -> Report:
    statuses = [line.order.status for line in results.orders if line.order]
    pace = Pace(
        limit_orders=results.limits.orders,
        limit_total=results.limits.total,
        busiest_second_orders=busiest(
            request.time for request in records.requests if request.is_order
        ),
        busiest_second_total=busiest(request.time for request in records.requests),
        refused=results.pauses,
    )
    checks, problems = _compare(results, records, pace)
    positions = results.positions
    return Report(
        seed=results.seed,
        instruments=list(
            dict.fromkeys(line.request.symbol for line in results.orders if line.order)
        ),
        orders=OrderCounts(
            placed=len(statuses),
            modified=results.modified,
            filled=statuses.count(OrderStatus.COMPLETE),
            cancelled=statuses.count(OrderStatus.CANCELLED),
            rejected=statuses.count(OrderStatus.REJECTED),
            working=sum(status.is_working for status in statuses),
            stopped_before_sending=sum(line.order is None for line in results.orders),
        ),
        rejections={
            line.order.number: line.order.reject_reason.strip()
            for line in results.orders
            if line.order and line.order.status is OrderStatus.REJECTED
        },
        stopped=results.refusal,
        bracket=results.bracket,
        fills=Fills(
            count=len(results.trades),
            units=sum(trade.quantity for trade in results.trades),
            value=round(sum(trade.quantity * trade.price for trade in results.trades), 2),
        ),
        pnl=ProfitAndLoss(
            total=_sum(position.pnl for position in positions),
            realised=_sum(position.realised for position in positions),
            unrealised=_sum(position.unrealised for position in positions),
        ),
        latency_ms=latency(results.acknowledgements),
        pace=pace,
        checks=checks,
        problems=[*results.problems, *problems],
        seconds=round(results.seconds, 2),
    )


def busiest(times: Iterable[float], window: float = 1.0) -> int:
    """Return the most of these times (in ascending order) within any window that long."""
    recent: deque[float] = deque()
    most = 0
    for time in times:
        recent.append(time)
        while recent[0] <= time - window:
            recent.popleft()
        most = max(most, len(recent))
    return most


def percentile(ordered: Sequence[N], percent: int) -> N:
    """Return the smallest value that so many percent of the values do not exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def latency(seconds: Iterable[float]) -> Latency:
    values = sorted(round(value * 1000, 3) for value in seconds) or [0.0]
    return Latency(
        count=len(values),
        p50=percentile(values, 50),
        p90=percentile(values, 90),
        p99=percentile(values, 99),
        max=values[-1],
    )


def summary(report: Report) -> Table:
    """Return a table of two columns that wrap in themselves, at any width."""
    from rich.table import Table
    from rich.text import Text

    from neo_async.cli.output import money, profit

    orders, pace, delay = report.orders, report.pace, report.latency_ms
    rows = [
        (
            "orders",
            f"{orders.placed} placed · {orders.modified} modified · {orders.filled} filled · "
            f"{orders.cancelled} cancelled · {orders.rejected} rejected · {orders.working} working",
        ),
        *(("rejected", _first_part(reason)) for reason in report.rejections.values()),
        ("never sent", report.stopped),
        ("bracket", _in_words(report.bracket)),
        (
            "fills",
            f"{report.fills.count}: {report.fills.units:,} units for {money(report.fills.value)}",
        ),
        (
            "P&L",
            f"{profit(report.pnl.total).text} (realised {profit(report.pnl.realised).text}, "
            f"unrealised {profit(report.pnl.unrealised).text})",
        ),
        (
            "latency",
            f"p50 {delay.p50:.2f} ms · p90 {delay.p90:.2f} · p99 {delay.p99:.2f} · "
            f"max {delay.max:.2f} ({delay.count} placements acknowledged)",
        ),
        (
            "pace",
            f"at most {pace.busiest_second_orders} orders and {pace.busiest_second_total} requests "
            f"in any second, as the exchange counted; {pace.refused or 'none'} refused with 429",
        ),
        ("checked", "; ".join(report.checks)),
    ]
    if report.problems:
        rows.append(("PROBLEMS", "; ".join(report.problems)))
    rows.append(("took", f"{report.seconds:.1f} s"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in rows:
        style = {"PROBLEMS": "red", "checked": "green"}.get(name, "")
        table.add_row(name, Text(text, style=style))
    return table


def _compare(results: Results, records: Records, pace: Pace) -> tuple[list[str], list[str]]:
    """Return the checks that passed, and the problems found."""
    orders = {line.order.number: line for line in results.orders if line.order}
    ledger = {entry.number: entry for entry in records.ledger}
    differing = [
        f"order {number}: {_client_side(orders.get(number))} here, "
        f"{_exchange_side(ledger.get(number))} at the exchange"
        for number in sorted(orders.keys() | ledger.keys())
        if _client_side(orders.get(number)) != _exchange_side(ledger.get(number))
    ]
    stray = [
        f"order {number} is {line.order.status_text!r}, neither final nor working"
        for number, line in orders.items()
        if line.order and not (line.order.is_final or line.order.status.is_working)
    ]
    repeated = [
        f"order {entry.number} arrived {entry.arrivals} times"
        for entry in records.ledger
        if entry.arrivals != 1
    ]
    filled = sum(trade.quantity for trade in results.trades)
    filled_there = sum(entry.filled_quantity for entry in records.ledger)
    outcomes = (
        ("every order is final or working", stray),
        (f"client and exchange agree on all {len(ledger)} orders", differing),
        ("each arrived once", repeated),
        (
            "every fill is in the trade book",
            [f"{filled} units in the trade book, {filled_there} filled at the exchange"]
            if filled != filled_there
            else [],
        ),
        ("one was rejected and one never sent, as they should", _expected(results)),
        ("the bracket is flat, by one exit order", _not_flat(results.bracket)),
        ("429 was waited out" if pace.refused else "the pace was kept", _too_fast(pace)),
    )
    holds = [fact for fact, failures in outcomes if not failures]
    return holds, [failure for _, failures in outcomes for failure in failures]


def _client_side(line: DemoOrder | None) -> tuple[str, int] | None:
    if line is None or line.order is None:
        return None
    return line.order.status.value, line.order.filled_quantity


def _exchange_side(entry: LedgerEntry | None) -> tuple[str, int] | None:
    return None if entry is None else (parse_status(entry.state).value, entry.filled_quantity)


def _expected(results: Results) -> list[str]:
    problems = []
    by_tag = {line.request.tag: line for line in results.orders}
    for tag, status in (
        ("oversell", OrderStatus.REJECTED),
        ("stop", OrderStatus.COMPLETE),
    ):
        order = by_tag[tag].order
        if order is None or order.status is not status:
            problems.append(f"the order tagged {tag!r} should be {status.value}: {order!r}")
    if by_tag["bad"].order is not None or not results.refusal:
        problems.append("the malformed order was not stopped")
    return problems


def _not_flat(bracket: BracketReport | None) -> list[str]:
    if bracket is None:
        return ["the bracket did not come to its end"]
    if bracket.state == "exited" and not bracket.net and len(bracket.exit_orders) == 1:
        return []
    return [
        f"the bracket in {bracket.symbol} is {bracket.state}, net {bracket.net}, with "
        f"{len(bracket.exit_orders)} exit orders"
    ]


def _in_words(bracket: BracketReport | None) -> str:
    if bracket is None:
        return "did not come to its end"
    return (
        f"1 plan: {bracket.quantity:,} {bracket.symbol}, stop {bracket.stop}, target "
        f"{bracket.target}, {bracket.state} by {bracket.exited_by} with {len(bracket.exit_orders)} "
        f"exit order, position {bracket.net}"
    )


def _too_fast(pace: Pace) -> list[str]:
    """Return a problem for each rate limit that was exceeded. A request that a loaded machine held
    up can arrive too close to the next ones; it is refused and sent again, and so not counted."""
    return [
        f"{most} {what} arrived in one second, and {pace.refused} of all were refused"
        for most, limit, what in (
            (pace.busiest_second_orders, pace.limit_orders, "orders"),
            (pace.busiest_second_total, pace.limit_total, "requests"),
        )
        if most - pace.refused > limit
    ]


def _sum(amounts: Iterable[float | None]) -> float | None:
    total = 0.0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return round(total, 2)


def _first_part(reason: str) -> str:
    """Return a reason without the broker's tail, `for entity account-… across exchange …`."""
    return reason.partition(" for entity ")[0].strip()
