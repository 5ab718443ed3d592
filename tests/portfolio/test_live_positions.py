"""Live positions agree with the report to the paisa, whatever the feed leaves out or mixes up."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async import (
    NeoClient,
    NotLoggedIn,
    Position,
    Product,
    Segment,
    ServerError,
    Side,
    UsageError,
)
from neo_async.config import FeedTimings
from neo_async.exchange import Exchange, Faults
from neo_async.model.answer import Answer
from neo_async.model.feed_state import FeedState
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import Holding, PositionRow
from neo_async.model.ticks import LiteTick, MarketStatus
from neo_async.portfolio.live_positions import READ_INTERVAL_SECONDS, LivePositions
from neo_async.portfolio.position_book import REPORT_LAG_SECONDS, UNLISTED_READS
from neo_async.portfolio.valuation import holding_of, holdings_by_instrument, value_position
from neo_async.wire.portfolio import read_positions
from neo_async.wire.rows import RowReader
from tests.clients import client_of, exchange_of, paths
from tests.execution.feed_broker import Feed
from tests.simulation.virtual_time import in_virtual_time

GRACE_PERIOD = 1.0
TODAY = "2026/11/23"

INSTRUMENTS: dict[str, dict[str, Any]] = {
    "ITBEES-EQ": {"exSeg": "nse_cm", "sym": "ITBEES", "tok": "19084"},
    "ITBEES-BE": {"exSeg": "nse_cm", "sym": "ITBEES", "tok": "19085"},
    "NIFTY26DECFUT": {"exSeg": "nse_fo", "sym": "NIFTY", "tok": "53001", "lotSz": "65"},
    "NIFTY26DEC24500CE": {"exSeg": "nse_fo", "sym": "NIFTY", "tok": "53002", "lotSz": "65"},
    "CRUDEOIL26DECFUT": {
        "exSeg": "mcx_fo",
        "sym": "CRUDEOIL",
        "tok": "4711",
        "multiplier": "100",
        "genNum": "3",
        "genDen": "7",
    },
}

Key = tuple[str, str]
"""Trading symbol and product."""

_ROWS = RowReader(PositionRow)


class Broker:
    """Positions as the broker keeps them, in paise; its report takes `latency` to arrive."""

    def __init__(self, *, latency: float = 0.0) -> None:
        self.feed = Feed()
        self.prices = {symbol: 10_000 + 5 * n for n, symbol in enumerate(INSTRUMENTS)}
        self.carried: dict[Key, tuple[int, int]] = {}
        """Units and their value at the previous close; negative when short."""
        self.traded: dict[Key, tuple[int, int, int, int]] = {}
        """Bought and sold today: units and values."""
        self.holdings: list[Holding] = []
        self.day = TODAY
        self.clock = 0
        self.reads: list[float] = []
        self.failures: list[Exception] = []
        self._latency = latency
        self._orders = 0
        self.live = LivePositions(self.report, grace_period=GRACE_PERIOD)
        self.live.attach(self.feed)

    async def report(self) -> tuple[list[PositionRow], dict[str, Holding]]:
        self.reads.append(asyncio.get_running_loop().time())
        answer = self.rows(), {holding.token: holding for holding in self.holdings}
        await asyncio.sleep(self._latency)
        if self.failures:
            raise self.failures.pop(0)
        return answer

    def rows(self) -> list[PositionRow]:
        rows = [self._row(key) for key in dict.fromkeys([*self.carried, *self.traded])]
        return _ROWS.read(Answer(200, {}, msgspec.json.encode(rows)))

    def truth(self) -> list[Position]:
        holdings = {holding.token: holding for holding in self.holdings}
        return [value_position(row, holdings.get(row.token), row.last_price) for row in self.rows()]

    def trade(self, symbol: str, product: str, side: str, quantity: int) -> list[tuple[str, Any]]:
        """Fill an order at the present price; return the messages that the feed would send."""
        self._orders += 1
        self.clock += 1
        value = quantity * self.prices[symbol]
        key = (symbol, product)
        bought, sold, paid, got = self.traded.get(key, (0, 0, 0, 0))
        if side == "B":
            bought, paid = bought + quantity, paid + value
        else:
            sold, got = sold + quantity, got + value
        self.traded[key] = (bought, sold, paid, got)
        order = {
            "nOrdNo": str(self._orders),
            "ordSt": "complete",
            "exSeg": INSTRUMENTS[symbol]["exSeg"],
            "trdSym": symbol,
            "prod": product,
            "trnsTp": side,
            "qty": quantity,
            "fldQty": quantity,
            "avgPrc": f"{self.prices[symbol] / 100:.2f}",
            "updRecvTm": self.clock,
        }
        return [("order", order), ("position", self.message(key))]

    def message(self, key: Key) -> dict[str, str]:
        row = self._row(key)
        names = "actId sym exSeg prod flBuyQty flSellQty buyAmt sellAmt hsUpTm trdSym tok"
        return {name: row[name] for name in names.split()}

    def print_price(self, symbol: str, paise: int) -> None:
        self.prices[symbol] = paise
        self.live.on_tick(tick(symbol, paise))

    def _row(self, key: Key) -> dict[str, Any]:
        symbol, product = key
        carried, value = self.carried.get(key, (0, 0))
        bought, sold, paid, got = self.traded.get(key, (0, 0, 0, 0))
        return {
            "actId": "ABC12",
            "prod": product,
            "trdSym": symbol,
            "cfBuyQty": str(max(carried, 0)),
            "cfSellQty": str(max(-carried, 0)),
            "cfBuyAmt": _rupees(value if carried > 0 else 0),
            "cfSellAmt": _rupees(value if carried < 0 else 0),
            "flBuyQty": str(bought),
            "flSellQty": str(sold),
            "buyAmt": _rupees(paid),
            "sellAmt": _rupees(got),
            "hsUpTm": f"{self.day} {self.clock // 3600:02d}:{self.clock // 60 % 60:02d}:00",
            "ltp": _rupees(self.prices[symbol]),
            **INSTRUMENTS[symbol],
        }


def _rupees(paise: int) -> str:
    return f"{paise // 100}.{paise % 100:02d}"


def tick(symbol: str, paise: int) -> LiteTick:
    facts = dict.fromkeys(LiteTick.__struct_fields__, 0)
    instrument = f"{INSTRUMENTS[symbol]['exSeg']}|{INSTRUMENTS[symbol]['tok']}"
    return msgspec.structs.replace(
        LiteTick(**facts),  # type: ignore[arg-type]
        instrument=instrument,
        symbol=symbol,
        last_price=paise / 100,
    )


def facts(position: Position) -> dict[str, Any]:
    """Everything but the row, of which each side has its own."""
    return {name: getattr(position, name) for name in Position.__struct_fields__ if name != "row"}


def agrees(live: LivePositions, truth: list[Position]) -> None:
    shown = {key: facts(position) for key, position in live.positions.items()}
    assert shown == {(one.segment, one.symbol, one.product): facts(one) for one in truth}


@contextlib.asynccontextmanager
async def started(broker: Broker) -> AsyncIterator[LivePositions]:
    await broker.live.start()
    broker.feed.go(FeedState.LIVE)
    await broker.live.wait(lambda live: live.is_current, timeout=60)
    try:
        yield broker.live
    finally:
        await broker.live.close()


# --- whatever is traded -----------------------------------------------------------------------

KEYS = [
    (symbol, product)
    for symbol, details in INSTRUMENTS.items()
    for product in (("CNC", "MIS") if details["exSeg"] == "nse_cm" else ("NRML", "MIS"))
]

TRADES = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from("BS"),
        st.integers(1, 500),
        st.integers(5, 300_000),  # the price in paise at which it trades
    ),
    max_size=12,
)
CARRIED = st.dictionaries(
    st.sampled_from(KEYS),
    st.tuples(st.integers(-300, 300).filter(bool), st.integers(1, 10**7)),
    max_size=4,
)
HOLDINGS = st.lists(
    st.builds(
        Holding,
        quantity=st.integers(1, 100),
        symbol=st.just("ITBEES"),
        token=st.sampled_from(["19084", "19085"]),
        average_price=st.none() | st.integers(1, 10**7).map(lambda price: price / 10_000),
    ),
    max_size=2,
)


def fresh(carried: Any, holdings: list[Holding], *, latency: float = 0.0) -> Broker:
    broker = Broker(latency=latency)
    broker.carried = carried
    broker.holdings = holdings
    return broker


@settings(deadline=None)
@given(carried=CARRIED, holdings=HOLDINGS, trades=TRADES)
@in_virtual_time
async def test_messages_alone_keep_known_positions_true_at_every_step(
    carried: Any, holdings: list[Holding], trades: list[Any]
) -> None:
    broker = fresh(carried, holdings)
    for symbol, product in KEYS:  # all have traded before
        broker.trade(symbol, product, "B", 1)
    async with started(broker) as live:
        reads = len(broker.reads)
        for (symbol, product), side, quantity, price in trades:
            broker.print_price(symbol, price)
            for kind, data in broker.trade(symbol, product, side, quantity):
                broker.feed.send(kind, data)
            agrees(live, broker.truth())
            assert live.is_current
        await asyncio.sleep(10 * GRACE_PERIOD)
        assert len(broker.reads) == reads


@settings(deadline=None)
@given(data=st.data(), carried=CARRIED, holdings=HOLDINGS, trades=TRADES)
@in_virtual_time
async def test_whatever_the_feed_does_positions_end_as_reported_and_trades_are_never_undone(
    data: st.DataObject, carried: Any, holdings: list[Holding], trades: list[Any]
) -> None:
    broker = fresh(carried, holdings, latency=0.3)
    async with started(broker) as live:
        arriving: list[tuple[float, str, Any]] = []
        begin = asyncio.get_running_loop().time()
        for number, ((symbol, product), side, quantity, price) in enumerate(trades):
            at = number * 0.2
            broker_trade = (at, "trade", (symbol, product, side, quantity, price))
            arriving.append(broker_trade)
        # Orders may all be reported twice or late, position messages may be lost.
        copies = data.draw(
            st.lists(
                st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 3), st.floats(0, 3)),
                min_size=len(trades),
                max_size=len(trades),
            )
        )
        seen: dict[Any, tuple[int, int]] = {}
        pending: list[tuple[float, str, Any]] = sorted(arriving, key=lambda one: one[0])
        sent = 0
        while pending:
            at, kind, content = pending.pop(0)
            await asyncio.sleep(max(0.0, begin + at - asyncio.get_running_loop().time()))
            if kind == "trade":
                symbol, product, side, quantity, price = content
                broker.print_price(symbol, price)
                (_, order), (_, position) = broker.trade(symbol, product, side, quantity)
                orders, positions, order_delay, position_delay = copies[sent]
                sent += 1
                pending += [(at + order_delay, "order", order)] * (orders + 1)
                pending += [(at + position_delay, "position", position)] * positions
                pending.sort(key=lambda one: one[0])
            else:
                broker.feed.send(kind, content)
            for key, shown in live.positions.items():
                now = (shown.row.buy_quantity, shown.row.sell_quantity)
                before = seen.get(key, (0, 0))
                assert now[0] >= before[0]
                assert now[1] >= before[1]
                seen[key] = now
        await live.wait(lambda live: live.is_current, timeout=60)
        await asyncio.sleep(10 * GRACE_PERIOD)
        agrees(live, broker.truth())


# --- when the report is read again ------------------------------------------------------------


async def test_the_repr_shows_whether_they_are_current() -> None:
    broker = Broker()
    assert repr(broker.live) == "<LivePositions 0, not started>"
    await broker.live.start()
    assert repr(broker.live) == "<LivePositions 0, catching up>"
    broker.feed.go(FeedState.LIVE)
    await broker.live.wait(lambda live: live.is_current, timeout=5)
    assert repr(broker.live) == "<LivePositions 0, current>"
    await broker.live.close()


async def test_the_report_is_read_once_to_begin_with_and_once_a_reconnect() -> None:
    broker = Broker()
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    await broker.live.start()
    assert (broker.feed.starts, len(broker.reads)) == (1, 1)
    for times in range(2, 5):
        broker.feed.go(FeedState.LIVE)
        await asyncio.sleep(5)
        assert len(broker.reads) == times
        broker.feed.go(FeedState.WAITING)
        assert not broker.live.is_current
        broker.trade("ITBEES-EQ", "CNC", "B", times)  # and nobody tells
    broker.feed.go(FeedState.LIVE)
    await broker.live.wait(lambda live: live.is_current, timeout=5)
    agrees(broker.live, broker.truth())
    await broker.live.close()


async def test_the_first_trade_in_an_instrument_leads_to_one_reading() -> None:
    broker = Broker(latency=0.2)
    async with started(broker) as live:
        await asyncio.sleep(5)
        before = len(broker.reads)
        for kind, data in broker.trade("NIFTY26DECFUT", "NRML", "S", 65):
            broker.feed.send(kind, data)
        assert not live.is_current
        await live.wait(lambda live: live.is_current, timeout=5)
        agrees(live, broker.truth())
        await asyncio.sleep(60)
        assert len(broker.reads) == before + 1


async def test_a_fill_without_its_position_message_leads_to_a_reading_after_a_while() -> None:
    broker = Broker()
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    async with started(broker) as live:
        await asyncio.sleep(5)
        before = len(broker.reads)
        (_, order), _ = broker.trade("ITBEES-EQ", "CNC", "B", 10)
        broker.feed.send("order", order)
        assert not live.is_current
        await asyncio.sleep(GRACE_PERIOD / 2)
        assert len(broker.reads) == before
        await asyncio.sleep(GRACE_PERIOD)
        agrees(live, broker.truth())
        assert len(broker.reads) == before + 1
        broker.feed.send("order", order)
        await asyncio.sleep(60)
        assert len(broker.reads) == before + 1


@pytest.mark.parametrize("position_first", [False, True])
def test_a_fill_with_its_position_message_needs_no_reading(position_first: bool) -> None:
    @in_virtual_time
    async def check() -> None:
        broker = Broker()
        broker.trade("ITBEES-EQ", "CNC", "B", 10)
        async with started(broker) as live:
            before = len(broker.reads)
            for quantity in (3, 5):
                messages = broker.trade("ITBEES-EQ", "CNC", "S", quantity)
                for kind, data in reversed(messages) if position_first else messages:
                    broker.feed.send(kind, data)
            await asyncio.sleep(60)
            agrees(live, broker.truth())
            assert len(broker.reads) == before

    check()


async def test_messages_that_name_an_instrument_less_clearly_still_end_in_the_truth() -> None:
    broker = Broker()
    for symbol in ("ITBEES-EQ", "NIFTY26DECFUT"):
        broker.trade(symbol, "NRML", "B", 65)
    async with started(broker) as live:
        for symbol, gone, expected_reads in (
            ("ITBEES-EQ", ["trdSym"], 0),
            ("ITBEES-EQ", ["trdSym", "tok"], 0),  # as documented
            ("NIFTY26DECFUT", ["trdSym"], 0),
            ("NIFTY26DECFUT", ["trdSym", "tok"], 1),  # any contract of NIFTY
            ("NIFTY26DEC24500CE", ["trdSym", "tok"], 1),
            ("ITBEES-EQ", ["flBuyQty"], 1),
            ("ITBEES-EQ", ["buyAmt"], 1),
        ):
            await asyncio.sleep(5)
            before = len(broker.reads)
            (_, _), (kind, message) = broker.trade(symbol, "NRML", "B", 65)
            broker.feed.send(kind, {k: v for k, v in message.items() if k not in gone})
            await live.wait(lambda live: live.is_current, timeout=5)
            agrees(live, broker.truth())
            assert len(broker.reads) == before + expected_reads, (symbol, gone)


async def test_a_name_that_two_series_share_names_neither() -> None:
    broker = Broker()
    for symbol in ("ITBEES-EQ", "ITBEES-BE"):
        broker.trade(symbol, "CNC", "B", 10)
    async with started(broker) as live:
        _, (kind, message) = broker.trade("ITBEES-BE", "CNC", "B", 5)
        broker.feed.send(kind, {k: v for k, v in message.items() if k not in ("trdSym", "tok")})
        await live.wait(lambda live: live.is_current, timeout=5)
        agrees(live, broker.truth())


async def test_a_first_trade_while_the_report_is_on_its_way_is_not_forgotten() -> None:
    broker = Broker(latency=0.5)
    async with started(broker) as live:
        live.refresh()
        await asyncio.sleep(GRACE_PERIOD + 0.1)
        _, (kind, message) = broker.trade("ITBEES-EQ", "CNC", "B", 5)  # the report left before
        broker.feed.send(kind, message)
        await live.wait(lambda live: live.is_current, timeout=30)
        agrees(live, broker.truth())


async def test_many_unclear_messages_share_readings() -> None:
    broker = Broker(latency=0.1)
    broker.trade("NIFTY26DECFUT", "NRML", "B", 65)
    async with started(broker) as live:
        await asyncio.sleep(5)
        before = len(broker.reads)
        for _ in range(200):
            (_, _), (kind, message) = broker.trade("NIFTY26DECFUT", "NRML", "B", 65)
            broker.feed.send(kind, {k: v for k, v in message.items() if k not in ("trdSym", "tok")})
            await asyncio.sleep(0.02)
        await live.wait(lambda live: live.is_current, timeout=5)
        agrees(live, broker.truth())
        assert len(broker.reads) <= before + 6  # in 4 s


async def test_a_new_day_is_taken_from_the_report_and_not_from_sums() -> None:
    broker = Broker()
    broker.trade("NIFTY26DECFUT", "NRML", "B", 65)
    async with started(broker) as live:
        yesterday = broker.message(("NIFTY26DECFUT", "NRML"))
        broker.carried = {("NIFTY26DECFUT", "NRML"): (65, 650_000)}
        broker.traded.clear()
        broker.day = "2026/11/24"
        _, (kind, message) = broker.trade("NIFTY26DECFUT", "NRML", "B", 130)
        broker.feed.send(kind, message)
        await asyncio.sleep(5)
        agrees(live, broker.truth())
        _, (kind, message) = broker.trade("NIFTY26DECFUT", "NRML", "S", 65)
        broker.feed.send(kind, message)
        agrees(live, broker.truth())
        broker.feed.send(kind, yesterday | {"flBuyQty": "6500"})
        await asyncio.sleep(5)
        agrees(live, broker.truth())


async def test_a_position_that_no_report_lists_is_dropped_with_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    async with started(broker) as live:
        before = len(broker.reads)
        broker.trade("ITBEES-EQ", "CNC", "B", 10)
        message = broker.message(("ITBEES-EQ", "CNC"))
        broker.traded.clear()
        broker.feed.send("position", message)
        await asyncio.sleep(READ_INTERVAL_SECONDS - 1)
        assert "lacks what was traded in [('nse_cm', 'ITBEES-EQ', 'CNC')]" in caplog.text
        assert len(broker.reads) - before == UNLISTED_READS
        assert live.is_current


async def test_a_report_that_lags_behind_the_messages_undoes_nothing() -> None:
    broker = Broker()
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    stale = broker.traded.copy()
    async with started(broker) as live:
        _, (kind, message) = broker.trade("ITBEES-EQ", "CNC", "B", 5)
        broker.feed.send(kind, message)
        now, broker.traded = broker.traded, stale
        live.refresh()
        await asyncio.sleep(5)
        broker.traded = now
        agrees(live, broker.truth())


async def test_a_report_that_cannot_be_read_is_read_again() -> None:
    broker = Broker()
    async with started(broker) as live:
        broker.failures = [ServerError("busy", status=503)] * 3
        broker.trade("ITBEES-EQ", "CNC", "B", 10)
        live.refresh()
        await asyncio.sleep(0.01)
        assert not live.is_current
        await live.wait(lambda live: live.is_current, timeout=60)
        agrees(live, broker.truth())


# --- days, and reports that are odd or late -----------------------------------------------------


class Day:
    """A clock that begins a minute before midnight in India and goes with the loop."""

    def __init__(self, begin: str = "2026-11-23T23:59:00+05:30") -> None:
        self.begin = datetime.fromisoformat(begin).timestamp()

    def __call__(self) -> float:
        return self.begin + asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    "begin", ["2026-11-23T23:59:00+05:30", "2026-11-24T08:59:00+05:30", "2026-11-24T09:14:00+05:30"]
)
def test_the_report_is_read_at_midnight_and_when_trading_begins(begin: str) -> None:
    @in_virtual_time
    async def check() -> None:
        broker = Broker()
        broker.live = LivePositions(broker.report, grace_period=GRACE_PERIOD, clock=Day(begin))
        broker.live.attach(broker.feed)
        async with started(broker) as live:
            before = len(broker.reads)
            await asyncio.sleep(58)
            assert len(broker.reads) == before
            await asyncio.sleep(5)
            assert len(broker.reads) == before + 1
            assert live.is_current

    check()


async def test_positions_of_yesterday_are_not_current_and_grow_old_until_they_are_read() -> None:
    broker = Broker()
    broker.live = LivePositions(broker.report, grace_period=GRACE_PERIOD, clock=Day())
    broker.live.attach(broker.feed)
    async with started(broker) as live:
        assert live.age == 0
        broker.failures = [ServerError("busy", status=503)] * 1000
        await asyncio.sleep(60 + 120)
        assert not live.is_current
        assert live.age == pytest.approx(120, abs=1)
        broker.failures.clear()
        await live.wait(lambda live: live.is_current, timeout=30)
        assert live.age == 0


async def test_a_trade_that_neither_feed_nor_book_reports_is_seen_within_minutes() -> None:
    broker = Broker()
    async with started(broker) as live:
        broker.trade("ITBEES-EQ", "CNC", "B", 10)  # and nobody tells
        await asyncio.sleep(READ_INTERVAL_SECONDS + 1)
        agrees(live, broker.truth())


async def test_a_carried_position_whose_time_has_not_moved_is_no_report_that_lags() -> None:
    broker = Broker()
    key = ("NIFTY26DECFUT", "NRML")
    broker.trade(*key, "B", 65)
    async with started(broker) as live:
        broker.carried, broker.traded = {key: (65, 650_000)}, {}
        live.refresh()
        await live.wait(lambda live: live.is_current, timeout=30)
        agrees(live, broker.truth())


async def test_a_report_that_lacks_a_trade_for_long_is_right_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    key = ("ITBEES-EQ", "CNC")
    broker.trade(*key, "B", 10)
    async with started(broker) as live:
        before = broker.traded[key]
        _, (kind, message) = broker.trade(*key, "B", 5)
        broker.feed.send(kind, message)
        broker.traded[key] = before  # the exchange has taken the trade back
        live.refresh()
        await asyncio.sleep(REPORT_LAG_SECONDS / 2)
        assert live.positions["nse_cm", *key].net_quantity == 15
        await asyncio.sleep(REPORT_LAG_SECONDS)
        assert live.positions["nse_cm", *key].net_quantity == 10
        assert "the positions report has lacked trades" in caplog.text


class OddBroker(Broker):
    """Its report has `odd` in place of the first position's fields."""

    def __init__(self, **odd: Any) -> None:
        super().__init__()
        self.odd = odd

    def rows(self) -> list[PositionRow]:
        rows = [self._row(key) for key in dict.fromkeys([*self.carried, *self.traded])]
        rows[0] |= self.odd
        return read_positions(Answer(200, {}, msgspec.json.encode({"data": rows, "stat": "ok"})))


@pytest.mark.parametrize("text", ["NaN", "inf", "-Infinity", "3,900.00", {}])
@pytest.mark.parametrize("field", ["buyAmt", "sellAmt", "cfBuyAmt", "multiplier"])
async def test_a_number_that_is_none_leaves_one_position_without_worth(
    field: str, text: object
) -> None:
    key = ("ITBEES-EQ", "CNC")
    broker = OddBroker(**{field: text})
    broker.carried[key] = (5, 50_000)
    broker.trade(*key, "B", 10)
    broker.trade(*key, "S", 4)
    broker.trade("NIFTY26DECFUT", "NRML", "S", 65)
    async with started(broker) as live:
        odd, whole = live.positions.values()
        assert (odd.net_quantity, odd.pnl, odd.mtm_pnl, odd.average_price) == (11, None, None, None)
        assert f"{field}=" in odd.unknown_reason
        assert whole.pnl == 0.0
        total = live.total()
        assert (total.pnl, total.mtm_pnl) == (None, None)
        assert list(total.unknown_reasons) == [("nse_cm", *key)]
        assert live.net_range("nse_cm", "ITBEES-EQ") == (11, 11)


@pytest.mark.parametrize("text", ["NaN", "inf", "-Infinity", "1,0", None])
async def test_a_quantity_that_is_none_leaves_the_held_units_unknown(text: str | None) -> None:
    broker = OddBroker(flBuyQty=text)
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    broker.trade("NIFTY26DECFUT", "NRML", "S", 65)
    async with started(broker) as live:
        assert live.net_range("nse_cm", "ITBEES-EQ") is None
        assert live.net_range("nse_fo", "NIFTY26DECFUT") == (-65, -65)
        assert live.positions["nse_cm", "ITBEES-EQ", "CNC"].pnl is None
        assert live.positions["nse_cm", "ITBEES-EQ", "CNC"].net_quantity is None
        assert live.positions["nse_fo", "NIFTY26DECFUT", "NRML"].pnl == 0.0
        _, (kind, message) = broker.trade("ITBEES-EQ", "CNC", "B", 10)
        broker.feed.send(kind, message)  # which has the number
        assert live.net_range("nse_cm", "ITBEES-EQ") == (20, 20)
        assert live.positions["nse_cm", "ITBEES-EQ", "CNC"].row.missing == frozenset()
        assert live.positions["nse_cm", "ITBEES-EQ", "CNC"].row.odd == ()
        assert live.positions["nse_cm", "ITBEES-EQ", "CNC"].net_quantity == 20
        live.refresh()
        await asyncio.sleep(5)
        assert live.net_range("nse_cm", "ITBEES-EQ") is None  # no source shows the trades since


async def test_an_older_message_is_no_answer_to_a_quantity_that_cannot_be_read() -> None:
    broker = OddBroker(flBuyQty="NaN")
    _, (kind, message) = broker.trade("ITBEES-EQ", "CNC", "B", 10)
    broker.clock += 120
    async with started(broker) as live:
        broker.feed.send(kind, message)
        await asyncio.sleep(60)
        assert live.net_range("nse_cm", "ITBEES-EQ") is None


async def test_a_report_whose_quantity_cannot_be_read_is_not_read_every_second_for_a_fill() -> None:
    broker = OddBroker(flBuyQty="NaN")
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    async with started(broker) as live:
        (kind, message), _ = broker.trade("ITBEES-EQ", "CNC", "B", 10)
        broker.feed.send(kind, message)
        before = len(broker.reads)
        await asyncio.sleep(60)
        assert len(broker.reads) - before <= 2
        assert live.net_range("nse_cm", "ITBEES-EQ") is None


@pytest.mark.parametrize("field", ["exSeg", "trdSym"])
async def test_a_position_whose_instrument_cannot_be_read_may_be_of_any(field: str) -> None:
    broker = OddBroker(**{field: None})
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    broker.trade("NIFTY26DECFUT", "NRML", "S", 65)
    async with started(broker) as live:
        assert live.net_range("nse_cm", "ITBEES-EQ") is None
        assert live.net_range("nse_fo", "NIFTY26DECFUT") == (-65, -65)


async def test_two_positions_whose_products_cannot_be_read_both_count() -> None:
    broker = OddBroker(prod={})
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    broker.trade("ITBEES-EQ", "MIS", "B", 5)
    rows = broker.rows()
    rows[1] = msgspec.structs.replace(rows[1], product="", missing=frozenset({"product"}))
    broker.rows = lambda: rows  # type: ignore[method-assign]
    async with started(broker) as live:
        assert live.net_range("nse_cm", "ITBEES-EQ") == (15, 15)


async def test_a_price_that_is_none_replaces_no_price() -> None:
    broker = Broker()
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    async with started(broker) as live:
        expected = broker.truth()
        for price in (float("nan"), float("inf"), -1.0, 0.0):
            live.on_tick(msgspec.structs.replace(tick("ITBEES-EQ", 0), last_price=price))
            live.price("nse_cm|19084", price)
            agrees(live, expected)


async def test_reports_and_messages_that_are_spelt_otherwise_are_of_the_same_position() -> None:
    broker = Broker()
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    async with started(broker) as live:
        before = len(broker.reads)
        (_, order), (_, message) = broker.trade("ITBEES-EQ", "CNC", "S", 4)
        broker.feed.send("order", {**order, "trdSym": "ITBEES-EQ ", "trnsTp": "s", "prod": "cnc"})
        assert live.net_range("nse_cm", " itbees-eq")[0] == 6  # type: ignore[index]
        broker.feed.send("position", {**message, "trdSym": "itbees-eq ", "exSeg": "NSE_CM"})
        assert live.is_current
        agrees(live, broker.truth())
        assert len(broker.reads) == before


async def test_a_position_message_counts_before_the_report_lists_its_position() -> None:
    broker = Broker(latency=0.5)
    async with started(broker) as live:
        await asyncio.sleep(5)
        _, (kind, message) = broker.trade("ITBEES-EQ", "CNC", "B", 10)
        broker.feed.send(kind, message)
        assert live.net_range("nse_cm", "ITBEES-EQ") == (0, 10)
        await live.wait(lambda live: live.is_current, timeout=5)
        assert live.net_range("nse_cm", "ITBEES-EQ") == (10, 10)


@pytest.mark.parametrize("number", ["1", "77"])
async def test_a_fill_that_the_book_reports_leads_to_a_reading_in_any_case(number: str) -> None:
    broker = Broker()
    async with started(broker) as live:
        await asyncio.sleep(5)
        (_, order), _ = broker.trade("ITBEES-EQ", "CNC", "B", 10)
        row = OrderRow(
            number=number, status_text="complete", segment="nse_cm", symbol="ITBEES-EQ",
            product="CNC", side="B", quantity=10, filled_quantity=10,
        )  # fmt: skip
        if number == "1":
            broker.feed.send("order", order)  # which reported the same fill
        live.on_missed_fill(row)
        assert not live.is_current
        await live.wait(lambda live: live.is_current, timeout=5)
        agrees(live, broker.truth())


async def test_positions_age_while_only_a_report_can_show_what_has_happened() -> None:
    broker = Broker()
    broker.trade("NIFTY26DECFUT", "NRML", "B", 65)
    async with started(broker) as live:
        broker.failures = [ServerError("busy", status=503)] * 1000
        _, (kind, message) = broker.trade("NIFTY26DECFUT", "NRML", "B", 65)
        broker.feed.send(kind, {k: v for k, v in message.items() if k not in ("trdSym", "tok")})
        await asyncio.sleep(50)
        assert live.age == pytest.approx(50, abs=1)
        broker.failures.clear()
        await live.wait(lambda live: live.is_current, timeout=30)
        assert live.age == 0


async def test_a_condition_that_fails_fails_for_its_own_waiter_only() -> None:
    broker = Broker()
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    async with started(broker) as live:
        waiting = [
            asyncio.create_task(live.wait(lambda live: 1 / (len(broker.reads) - 100) > 0)),
            asyncio.create_task(live.wait(lambda live: bool(broker.day == "later"))),
        ]
        await asyncio.sleep(0)
        broker.reads += [0.0] * (100 - len(broker.reads))
        broker.print_price("ITBEES-EQ", 12_345)
        with pytest.raises(ZeroDivisionError):
            await waiting[0]
        broker.day = "later"
        broker.print_price("ITBEES-EQ", 12_350)
        await waiting[1]


# --- holdings of positions ----------------------------------------------------------------------


def held(segment: str, token: str, quantity: int, price: float | None) -> Holding:
    return Holding(quantity=quantity, symbol="X", segment=segment, token=token, average_price=price)


@pytest.mark.parametrize(
    ("holdings", "cost"),
    [
        ([held("nse_cm", "7", 10, 5.0), held("bse_cm", "7", 10, 9.0)], 5.0),
        ([held("bse_cm", "7", 10, 9.0)], None),
        ([held(" NSE_CM", "7 ", 10, 5.0)], 5.0),
        ([held("", "7", 10, 5.0)], 5.0),
        ([held("NSE", "7", 10, 5.0)], 5.0),
        ([held("nse_cm", "7", 10, 5.0), held("nse_cm", "7", 30, 9.0)], 8.0),
        ([held("nse_cm", "7", 10, 5.0), held("nse_cm", "7", 30, None)], None),
    ],
)
def test_a_holding_belongs_to_the_position_of_its_exchange_and_token(
    holdings: list[Holding], cost: float | None
) -> None:
    row = PositionRow(segment="nse_cm", symbol="X-EQ", token="7", carried_buy_quantity=10)
    holding = holding_of(row, holdings_by_instrument(holdings))
    assert (None if holding is None else holding.average_price) == cost


# --- life -------------------------------------------------------------------------------------


async def test_starting_fails_as_positions_would_and_may_be_tried_again() -> None:
    broker = Broker()
    broker.failures = [ServerError("busy", status=503)]
    with pytest.raises(ServerError):
        await broker.live.start()
    with pytest.raises(NotLoggedIn, match="start"):
        await broker.live.wait(lambda live: live.is_current)
    await broker.live.start()
    await broker.live.start()  # is no news
    assert len(broker.reads) == 2
    await broker.live.close()


async def test_without_a_feed_there_are_no_live_positions() -> None:
    with pytest.raises(UsageError, match="attach"):
        await LivePositions(Broker().report).start()


async def test_a_logout_ends_all_waits() -> None:
    broker = Broker()
    await broker.live.start()
    waiting = asyncio.create_task(broker.live.wait(lambda live: live.is_current))
    changing = asyncio.create_task(anext(broker.live.changes()))
    await asyncio.sleep(1)
    await broker.live.close()
    for task in (waiting, changing):
        with pytest.raises(NotLoggedIn):
            await task


# --- prices, sums and changes -----------------------------------------------------------------


async def test_ticks_value_the_positions_of_their_instrument() -> None:
    broker = Broker()
    for product in ("CNC", "MIS"):
        broker.trade("ITBEES-EQ", product, "B", 10)
    broker.trade("NIFTY26DECFUT", "NRML", "S", 65)
    async with started(broker) as live:
        assert live.instruments == ["nse_cm|19084", "nse_fo|53001"]
        broker.print_price("ITBEES-EQ", 12_345)
        agrees(live, broker.truth())
        live.on_tick(tick("ITBEES-EQ", 0))  # has not traded: no price
        live.on_tick(tick("CRUDEOIL26DECFUT", 5))  # none of ours
        live.on_tick(MarketStatus(segment="nse_cm", code=1, text="", received_ns=0))
        agrees(live, broker.truth())
        prices = {position.last_price for position in live.positions.values()}
        assert prices == {123.45, broker.prices["NIFTY26DECFUT"] / 100}


async def test_a_tick_that_overtakes_the_report_is_newer() -> None:
    broker = Broker(latency=0.5)
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    async with started(broker) as live:
        await asyncio.sleep(5)
        live.refresh()
        await asyncio.sleep(0.1)
        broker.print_price("ITBEES-EQ", 12_345)
        await live.wait(lambda live: live.is_current, timeout=5)
        agrees(live, broker.truth())
        # And a report is newer than the ticks before it.
        broker.prices["ITBEES-EQ"] = 12_400
        live.refresh()
        await asyncio.sleep(5)
        agrees(live, broker.truth())


async def test_sums_are_exact_and_unknown_when_a_part_is() -> None:
    broker = Broker()
    broker.trade("ITBEES-EQ", "CNC", "B", 10)
    broker.trade("NIFTY26DECFUT", "NRML", "S", 65)
    async with started(broker) as live:
        broker.print_price("ITBEES-EQ", 10_110)
        broker.print_price("NIFTY26DECFUT", 10_000)
        total = live.total()
        assert (total.realised, total.unknown_reasons) == (0.0, {})
        assert total.pnl == total.unrealised == total.mtm_pnl == pytest.approx(11 + 6.5)
        broker.carried = {("ITBEES-BE", "CNC"): (5, 1000)}  # and no holding tells the cost
        live.refresh()
        await asyncio.sleep(5)
        total = live.total()
        assert (total.pnl, total.realised, total.unrealised) == (None, None, None)
        assert total.mtm_pnl is not None
        ((key, reason),) = total.unknown_reasons.items()
        assert key == ("nse_cm", "ITBEES-BE", "CNC")
        assert "no holding" in reason


async def test_a_slow_consumer_gets_the_newest_state_of_each_position_once() -> None:
    broker = Broker()
    for symbol in ("ITBEES-EQ", "NIFTY26DECFUT"):
        broker.trade(symbol, "NRML", "B", 65)
    async with started(broker) as live:
        changes = live.changes()
        first = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
        for paise in range(20_000, 21_000, 5):
            broker.print_price("ITBEES-EQ", paise)
        _, (kind, message) = broker.trade("NIFTY26DECFUT", "NRML", "S", 65)
        broker.feed.send(kind, message)
        got = [await first, await anext(changes)]
        assert [(one.symbol, one.last_price, one.net_quantity) for one in got] == [
            ("ITBEES-EQ", 209.95, 65),
            ("NIFTY26DECFUT", broker.prices["NIFTY26DECFUT"] / 100, 0),
        ]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(changes)
        await changes.aclose()  # type: ignore[attr-defined]
        live.refresh()  # nothing has changed
        changes = live.changes()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await anext(changes)


# --- over sockets -----------------------------------------------------------------------------


async def _trade(neo: NeoClient, other: NeoClient, dice: random.Random, count: int) -> None:
    """Orders at prices that cross, each with the other account on the other side."""
    for _ in range(count):
        product = dice.choice([Product.MIS, Product.NRML])
        side = dice.choice(list(Side))
        quantity = dice.randint(1, 50)
        price = f"{dice.randint(3850, 3950) / 100:.2f}"
        what = (Segment.NSE_CM, "ITBEES-EQ")
        resting = await other.orders.place(
            *what, side.opposite, quantity, product=Product.MIS, price=price
        )
        order = await neo.orders.place(*what, side, quantity, product=product, price=price)
        await order.wait(timeout=5)
        await resting.wait(timeout=5)


@contextlib.asynccontextmanager
async def two_traders() -> AsyncIterator[tuple[Exchange, NeoClient, NeoClient]]:
    async with exchange_of() as exchange:
        first, second = exchange.accounts
        async with (
            client_of(exchange, credentials=first, feed_timings=FeedTimings(quiet=0.1)) as neo,
            client_of(exchange, credentials=second, feed_timings=FeedTimings(quiet=0.1)) as other,
        ):
            await neo.order_feed.until_live()
            yield exchange, neo, other


@pytest.mark.parametrize("trouble", ["none", "disturbed", "dropped"])
async def test_over_sockets_live_positions_equal_the_report_after_any_trades(trouble: str) -> None:
    dice = random.Random(trouble)
    async with two_traders() as (exchange, neo, other):
        live = neo.portfolio.live
        await live.start()
        if trouble == "disturbed":
            exchange.faults.set(Faults(feed_repeat=0.3, feed_late=0.4, feed_lose=0.3))
        for _ in range(4):
            await _trade(neo, other, dice, 5)
            if trouble == "dropped":
                exchange.feeds.drop_connections("orders")
        exchange.faults.set(Faults())
        if trouble == "disturbed":
            live.refresh()
        await live.wait(lambda live: live.is_current, timeout=5)
        reported = await neo.portfolio.positions()
        assert len(reported) == 2
        for position in reported:
            instrument = f"{position.segment}|{position.token}"
            assert position.last_price is not None
            live.on_tick(_lite(instrument, position.last_price))
        agrees(live, reported)
        if trouble == "none":
            positions = (await paths(exchange)).count("/neo/portfolio/v2/positions")
            assert positions <= 5  # at the start, for each new position, and the one just asked


def _lite(instrument: str, price: float) -> LiteTick:
    blank = LiteTick(**dict.fromkeys(LiteTick.__struct_fields__, 0))  # type: ignore[arg-type]
    return msgspec.structs.replace(blank, instrument=instrument, last_price=price)


async def test_a_position_that_was_converted_to_another_product_counts_once() -> None:
    broker = Broker()
    async with started(broker) as live:
        for kind, data in broker.trade("ITBEES-EQ", "MIS", "B", 60):
            broker.feed.send(kind, data)
        await asyncio.sleep(5)
        assert live.net_range("nse_cm", "ITBEES-EQ") == (60, 60)
        broker.traded["ITBEES-EQ", "CNC"] = broker.traded.pop(("ITBEES-EQ", "MIS"))
        await asyncio.sleep(READ_INTERVAL_SECONDS + REPORT_LAG_SECONDS)
        assert live.net_range("nse_cm", "ITBEES-EQ") == (60, 60)
