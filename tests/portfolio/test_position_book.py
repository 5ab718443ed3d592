"""The position book, without a feed: any order of reports, messages, fills and prices.

A small account trades, and its fills, position messages and reports reach the book late, in part or
twice. Fills arrive in the order of the trades, as on one connection; position messages may be lost.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from neo_async.base.india import begin_of, day_number
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import PositionKey, PositionRow
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.portfolio.position_book import REPORT_LAG_SECONDS, UNLISTED_READS, PositionBook
from neo_async.portfolio.position_effects import UNKNOWN_FILL, Fill

TODAY = day_number(begin_of("261123") // 10**9)
SEGMENT = "nse_fo"
SYMBOLS = ("NIFTY26DECFUT", "RELIANCE26DECFUT")
PRODUCTS = ("NRML", "MIS")
KEYS: list[PositionKey] = [(SEGMENT, symbol, product) for symbol in SYMBOLS for product in PRODUCTS]
keys = st.sampled_from(KEYS)

Traded = tuple[int, int]
"""Units bought and sold today."""


def order(number: int, key: PositionKey, side: str, filled: int, quantity: int) -> OrderUpdate:
    segment, symbol, product = key
    return OrderUpdate(
        number=str(number),
        status_text="complete" if filled == quantity else "open",
        segment=segment,
        symbol=symbol,
        product=product,
        side=side,
        quantity=quantity,
        filled_quantity=filled,
        updated_ns=begin_of("261123") + 1,
    )


def message(key: PositionKey, traded: Traded, second: int = 0) -> PositionUpdate:
    segment, symbol, product = key
    return PositionUpdate(
        segment=segment,
        symbol=symbol,
        product=product,
        token=str(SYMBOLS.index(symbol) + 1),
        buy_quantity=traded[0],
        sell_quantity=traded[1],
        buy_value=Decimal(100 * traded[0]),
        sell_value=Decimal(101 * traded[1]),
        time_text=f"2026/11/23 10:00:{second % 60:02}",
    )


def row(key: PositionKey, traded: Traded, carried: int = 0, second: int = 0) -> PositionRow:
    segment, symbol, product = key
    return PositionRow(
        segment=segment,
        symbol=symbol,
        product=product,
        token=str(SYMBOLS.index(symbol) + 1),
        carried_buy_quantity=max(carried, 0),
        carried_sell_quantity=max(-carried, 0),
        buy_quantity=traded[0],
        sell_quantity=traded[1],
        buy_value=100.0 * traded[0],
        sell_value=101.0 * traded[1],
        last_price=100.0,
        time_text=f"2026/11/23 10:00:{second % 60:02}",
    )


class Account:
    """The broker's side: positions carried and traded."""

    def __init__(self) -> None:
        self.carried = dict.fromkeys(KEYS, 0)
        self.traded: dict[PositionKey, Traded] = {}

    def trade(self, key: PositionKey, side: str, quantity: int) -> None:
        bought, sold = self.traded.get(key, (0, 0))
        bought, sold = (bought + quantity, sold) if side == "B" else (bought, sold + quantity)
        self.traded[key] = (bought, sold)

    def rows(self) -> list[PositionRow]:
        return [
            row(key, self.traded.get(key, (0, 0)), self.carried[key])
            for key in KEYS
            if key in self.traded or self.carried[key]
        ]

    def net(self, symbol: str) -> int:
        return sum(
            self.carried[key] + self.traded.get(key, (0, 0))[0] - self.traded.get(key, (0, 0))[1]
            for key in KEYS
            if key[1] == symbol
        )


def shown(book: PositionBook) -> dict[PositionKey, Traded]:
    return {
        key: (position.row.buy_quantity, position.row.sell_quantity)
        for key, position in book.positions.items()
    }


class Merging(RuleBasedStateMachine):
    """An account whose trades reach the book in three ways.

    Each report shows the account at some moment between its request and its arrival.
    """

    def __init__(self) -> None:
        super().__init__()
        self.book = PositionBook()
        self.account = Account()
        self.account.carried[KEYS[0]] = 75
        self.account.carried[KEYS[3]] = -20
        self.now = 1000.0
        self.orders = 0
        self.messages: list[PositionUpdate] = []
        self.requested_at: float | None = None
        self.snapshots: list[list[PositionRow]] = []
        self.request()
        self.receive(0)

    def note_state(self) -> None:
        if self.requested_at is not None:
            self.snapshots.append(self.account.rows())

    # --- trades -------------------------------------------------------------------------------

    @rule(key=keys, side=st.sampled_from("BS"), parts=st.lists(st.integers(1, 50), min_size=1))
    def trade(self, key: PositionKey, side: str, parts: list[int]) -> None:
        """An order that is filled in parts. Every fill is reported at once, and then once more."""
        self.orders += 1
        filled = 0
        for part in parts[:3]:
            filled += part
            self.account.trade(key, side, part)
            self.note_state()
            report = order(self.orders, key, side, filled, sum(parts[:3]))
            fill = self.book.apply_fill(report, now=self.now, today=TODAY)
            assert fill == Fill(key, *((part, 0) if side == "B" else (0, part)))
            self.book.await_message(fill, self.now)
            assert self.book.apply_fill(report, now=self.now, today=TODAY) is None
            assert not self.book.is_new_fill(report, TODAY)
            self.messages.append(message(key, self.account.traded[key]))

    @precondition(lambda self: self.messages)
    @rule(data=st.data(), copies=st.integers(0, 2))
    def deliver(self, data: st.DataObject, copies: int) -> None:
        """Some position message arrives, once or twice; or it is lost."""
        update = self.messages.pop(data.draw(st.integers(0, len(self.messages) - 1)))
        for _ in range(copies):
            before = shown(self.book)
            effect = self.book.apply_message(update)
            assert not effect.is_unidentified
            changed = {key for key, traded in shown(self.book).items() if traded != before[key]}
            assert changed == ({effect.changed} if effect.changed else set())
        if copies == 2 and not effect.is_unlisted:
            assert effect.changed is None, "a message that arrives again changes nothing"

    # --- reports ------------------------------------------------------------------------------

    @precondition(lambda self: self.requested_at is None)
    @rule()
    def request(self) -> None:
        self.book.begin_report()
        self.requested_at = self.now
        self.snapshots = [self.account.rows()]

    @precondition(lambda self: self.requested_at is not None)
    @rule(moment=st.integers(0, 1000))
    def receive(self, moment: int) -> None:
        assert self.requested_at is not None
        rows = self.snapshots[min(moment, len(self.snapshots) - 1)]
        before = self.book.positions
        effect = self.book.apply_report(
            rows, {}, requested_at=self.requested_at, received_at=self.now
        )
        self.requested_at = None
        after = self.book.positions
        changed = {key for key in after if shown_row(before.get(key)) != shown_row(after[key])}
        assert changed <= set(effect.changed)
        assert not effect.overruled

    @precondition(lambda self: self.requested_at is not None)
    @rule()
    def fail(self) -> None:
        before = shown(self.book)
        self.book.abandon_report()
        self.requested_at = None
        assert shown(self.book) == before

    @rule(seconds=st.floats(0.1, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.requested_at is None)
    @rule()
    def settle(self) -> None:
        """A report that no message can be ahead of leaves no doubt."""
        self.messages.clear()
        for _ in range(UNLISTED_READS):
            self.now += REPORT_LAG_SECONDS
            self.request()
            self.receive(0)
        assert not self.book.awaits_messages
        assert not self.book.has_unlisted
        assert not self.book.is_report_behind
        truth = {key: self.account.traded.get(key, (0, 0)) for key in shown(self.book)}
        assert shown(self.book) == truth
        for symbol in SYMBOLS:
            net = self.account.net(symbol)
            assert self.book.net_range(SEGMENT, symbol, TODAY) == (net, net)

    # --- what holds at every moment -----------------------------------------------------------

    @invariant()
    def rows_show_no_trade_that_has_not_happened(self) -> None:
        for key, (bought, sold) in shown(self.book).items():
            true = self.account.traded.get(key, (0, 0))
            assert bought <= true[0]
            assert sold <= true[1]

    @invariant()
    def the_net_quantity_lies_within_its_bounds(self) -> None:
        for symbol in SYMBOLS:
            bounds = self.book.net_range(SEGMENT, symbol, TODAY)
            assert bounds is not None
            assert bounds[0] <= self.account.net(symbol) <= bounds[1]

    @invariant()
    def a_fill_that_no_row_shows_awaits_its_message(self) -> None:
        rows = shown(self.book)
        if any(rows.get(key, (0, 0)) != traded for key, traded in self.account.traded.items()):
            assert self.book.awaits_messages


def shown_row(position: object) -> object:
    """The part of a position whose change is reported."""
    row = getattr(position, "row", None)
    return row and (row.buy_quantity, row.sell_quantity, row.buy_value, row.sell_value)


TestMerging = Merging.TestCase
TestMerging.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


# --- reports that lag -------------------------------------------------------------------------


def received(book: PositionBook, rows: list[PositionRow], at: float) -> None:
    book.begin_report()
    book.apply_report(rows, {}, requested_at=at, received_at=at)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=2, max_size=5), st.data())
def test_within_a_day_the_trades_of_a_row_only_grow(
    steps: list[Traded], data: st.DataObject
) -> None:
    key = KEYS[0]
    totals = [(0, 0)]
    for bought, sold in steps:
        totals.append((totals[-1][0] + bought, totals[-1][1] + sold))
    book = PositionBook()
    received(book, [row(key, totals[0])], 0.0)
    newest = (0, 0)
    for _ in range(8):
        reported = data.draw(st.sampled_from(totals))
        if data.draw(st.booleans()):
            book.apply_message(message(key, reported))
        else:
            received(book, [row(key, reported)], 1.0)
            assert book.is_report_behind == (reported < newest)
        newest = max(newest, reported)
        assert shown(book)[key] == newest


@given(st.integers(0, 200))
def test_a_report_that_lacks_trades_for_long_counts(lag: int) -> None:
    key = KEYS[0]
    book = PositionBook()
    received(book, [row(key, (0, 0))], 0.0)
    book.apply_message(message(key, (10, 0)))
    received(book, [row(key, (0, 0))], 1.0)
    assert shown(book)[key] == (10, 0)
    book.begin_report()
    effect = book.apply_report(
        [row(key, (0, 0))], {}, requested_at=1.0 + lag, received_at=1.0 + lag
    )
    if lag < REPORT_LAG_SECONDS:
        assert shown(book)[key] == (10, 0)
        assert not effect.overruled
    else:
        assert shown(book)[key] == (0, 0)
        assert effect.overruled == [(key, lag, (0, 0), (10, 0))]
        assert effect.changed == [key]


@given(st.floats(0.0, 200.0))
def test_the_lower_bound_of_a_fill_lasts_until_the_report_must_have_it(age: float) -> None:
    """Else a position that was converted to another product would count in both."""
    book = PositionBook()
    received(book, [], 0.0)
    fill = book.apply_fill(order(1, KEYS[0], "B", 10, 10), now=0.0, today=TODAY)
    assert fill is not None
    book.await_message(fill, 0.0)
    received(book, [row(KEYS[1], (10, 0))], age)
    expected = (10, 10) if age >= REPORT_LAG_SECONDS else (20, 20)
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) == expected


@pytest.mark.parametrize("age", [1.0, REPORT_LAG_SECONDS - 1, REPORT_LAG_SECONDS])
def test_a_report_that_lacks_a_young_fill_leaves_the_upper_bound(age: float) -> None:
    book = PositionBook()
    received(book, [row(KEYS[0], (10, 0))], 0.0)
    fill = book.apply_fill(order(1, KEYS[0], "B", 5, 5), now=1.0, today=TODAY)
    assert fill is not None
    book.await_message(fill, 1.0)
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) == (10, 15)
    received(book, [row(KEYS[0], (10, 0))], 1.0 + age)
    may_lack_it = age < REPORT_LAG_SECONDS
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) == ((10, 15) if may_lack_it else (10, 10))
    received(book, [row(KEYS[0], (15, 0))], 2.0 + age)
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) == (15, 15)


# --- what cannot be read, and what is not listed ----------------------------------------------


def test_a_fill_that_does_not_say_its_position_leaves_no_bounds_until_a_report() -> None:
    book = PositionBook()
    received(book, [], 0.0)
    nameless = OrderRow(number="1", status_text="complete", quantity=5, filled_quantity=5)
    assert book.apply_fill(nameless, now=0.0, today=TODAY) == UNKNOWN_FILL
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) is None
    book.begin_report()
    later = OrderRow(number="2", status_text="complete", quantity=5, filled_quantity=5)
    book.apply_fill(later, now=1.0, today=TODAY)
    book.apply_report([], {}, requested_at=0.5, received_at=1.5)
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) is None, "the report may lack the second"
    received(book, [], 2.0)
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) == (0, 0)


@pytest.mark.parametrize("field", ["buy_quantity", "sell_value"])
def test_a_message_without_an_amount_only_asks_for_a_report(field: str) -> None:
    book = PositionBook()
    received(book, [row(KEYS[0], (1, 1))], 0.0)
    update = msgspec.structs.replace(message(KEYS[0], (5, 5)), **{field: None})
    assert book.apply_message(update).is_unidentified
    assert shown(book) == {KEYS[0]: (1, 1)}


@pytest.mark.parametrize("is_listed_before", [True, False])
def test_a_message_that_arrives_during_a_report_is_applied_to_its_rows(
    is_listed_before: bool,
) -> None:
    book = PositionBook()
    received(book, [row(KEYS[0], (1, 0))] if is_listed_before else [], 0.0)
    book.begin_report()
    effect = book.apply_message(message(KEYS[0], (5, 0)))
    assert effect.changed == (KEYS[0] if is_listed_before else None)
    effect_of_report = book.apply_report(
        [row(KEYS[0], (2, 0)), row(KEYS[1], (3, 3))], {}, requested_at=1.0, received_at=2.0
    )
    assert shown(book) == {KEYS[0]: (5, 0), KEYS[1]: (3, 3)}
    assert not book.has_unlisted
    assert set(effect_of_report.changed) >= {KEYS[1], *([] if is_listed_before else KEYS[:1])}


def test_a_message_waits_for_a_report_that_lists_its_position_but_not_for_ever() -> None:
    book = PositionBook()
    received(book, [], 0.0)
    assert book.apply_message(message(KEYS[0], (5, 0))).is_unlisted
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) == (0, 5)
    for reads in range(1, UNLISTED_READS):
        received(book, [], 1.0)
        assert (book.has_unlisted, book.unlisted_reads) == (True, reads)
    book.begin_report()
    assert book.apply_report([], {}, requested_at=2.0, received_at=2.0).dropped == [KEYS[0]]
    assert not book.has_unlisted


def test_a_new_day_drops_the_fills_of_the_day_before_but_not_what_orders_had_filled() -> None:
    book = PositionBook()
    received(book, [], 0.0)
    assert book.apply_fill(order(1, KEYS[0], "B", 4, 10), now=0.0, today=TODAY) is not None
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY) == (4, 4)
    assert book.net_range(SEGMENT, SYMBOLS[0], TODAY + 1) == (0, 0)
    again = book.apply_fill(order(1, KEYS[0], "B", 10, 10), now=1.0, today=TODAY + 1)
    assert again == Fill(KEYS[0], 6, 0), "a GTD order goes on"


# --- prices -----------------------------------------------------------------------------------


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_price_changes_the_positions_of_its_instrument_once(price: float) -> None:
    book = PositionBook()
    received(book, [row(key, (2, 1)) for key in KEYS], 0.0)
    other = book.position(KEYS[3])
    changed = book.apply_price(f"{SEGMENT}|1", price)
    is_valid = 0 < price < float("inf") and price != 100.0
    assert list(changed) == (KEYS[:2] if is_valid else [])
    assert not book.apply_price(f"{SEGMENT}|1", price)
    if is_valid:
        assert book.position(KEYS[0]).last_price == price
    assert book.position(KEYS[3]) is other, "it is not valued again"
    assert not book.apply_price("nse_cm|9", 5.0)


def test_a_price_that_arrives_during_a_report_outlasts_the_report_s_own() -> None:
    book = PositionBook()
    received(book, [row(KEYS[0], (2, 1))], 0.0)
    book.begin_report()
    book.apply_price(f"{SEGMENT}|1", 103.0)
    book.apply_report([row(KEYS[0], (2, 1))], {}, requested_at=1.0, received_at=2.0)
    assert book.position(KEYS[0]).last_price == 103.0
    received(book, [row(KEYS[0], (2, 1))], 3.0)
    assert book.position(KEYS[0]).last_price == 100.0
