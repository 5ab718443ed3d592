"""The fund house by itself: orders, the batch, money and units, SIPs."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.base.india import IST
from neo_async.calendar import MUTUAL_FUNDS
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.funds.listing import default_schemes
from neo_async.exchange.funds.simulator import FundSimulator
from neo_async.exchange.funds.types import (
    Frequency,
    FundRefusal,
    FundState,
    NewOrder,
    NewSip,
    OrderRecord,
    OrderState,
    Side,
    SipChange,
    SipRecord,
    SipState,
)
from neo_async.model.isin import check_digit

FUND = "INF174K01LS2"
"""At least 5,000 at first, then 100; multiples of 1."""
HELD = "INF205K01NT8"
"""382.488 units; sells from 1.000 on; buys in multiples of 500."""
SMALL = "INF666M01451"
"""1.334 units."""
DAY = 86_400
CASH = 20_000_00


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=IST).timestamp())


MORNING = at("2026-11-23 10:00")
"""A Monday."""
BATCH = at("2026-11-23 13:30")


NO_HOLIDAY = CALENDAR.with_session(MUTUAL_FUNDS, date(2026, 11, 24), "09:00", "15:00")
"""The calendar for tests that count days, in which the holiday of that week is none."""


def simulator_of(**settings: Any) -> FundSimulator:
    defaults: dict[str, Any] = {"seed": 7, "now_s": MORNING, "cash": CASH, "calendar": NO_HOLIDAY}
    return FundSimulator(default_schemes(), **{**defaults, **settings})


def buy(
    simulator: FundSimulator, amount: int = 5000_00, isin: str = FUND, **more: Any
) -> OrderRecord:
    return simulator.place(NewOrder(isin=isin, side=Side.BUY, amount=amount, **more))


def sell(simulator: FundSimulator, units: int, isin: str = HELD) -> OrderRecord:
    return simulator.place(NewOrder(isin=isin, side=Side.SELL, units=units))


def begin_sip(simulator: FundSimulator, **changes: Any) -> SipRecord:
    fields: dict[str, Any] = {
        "isin": HELD,
        "amount": 500_00,
        "frequency": Frequency.WEEKLY,
        "instalments": -1,
    }
    return simulator.place_sip(NewSip(**{**fields, **changes}))


def test_the_funds_have_good_isins_and_each_its_own() -> None:
    schemes = default_schemes()
    isins = [scheme.isin for scheme in schemes]
    assert len(set(isins)) == len(isins) > 150
    assert all(len(isin) == 12 and isin[-1] == check_digit(isin[:-1]) for isin in isins)
    assert len({(scheme.name, scheme.dividend_type) for scheme in schemes}) == len(schemes)


# --- the batch ------------------------------------------------------------------------------------


def test_an_order_waits_for_the_batch_and_is_executed_at_its_nav() -> None:
    simulator = simulator_of()
    order = buy(simulator, tag="t")
    before = simulator.nav(FUND)
    simulator.advance(BATCH - 1)
    assert (order.state, order.nav, order.exchange_order_id) == (OrderState.OPEN, 0, None)
    simulator.advance(BATCH)
    assert order.state is OrderState.COMPLETE
    assert order.nav == simulator.nav(FUND) != before
    assert order.units == 5000_00 * 100_000 // order.nav
    assert (order.exchange_day, simulator.state.nav_day) == (date(2026, 11, 23), date(2026, 11, 23))
    assert order.exchange_order_id is not None
    assert order.settlement_id is not None
    holding = simulator.state.holdings[FUND]
    assert (holding.units, holding.cost, holding.folio) == (order.units, 5000_00, order.folio)
    assert simulator.state.cash == CASH - 5000_00


@pytest.mark.parametrize(
    ("placed", "executed"),
    [
        ("2026-11-23 13:29:59", date(2026, 11, 23)),
        ("2026-11-23 13:30", date(2026, 11, 25)),  # over a holiday
        ("2026-11-27 18:00", date(2026, 11, 30)),  # over a weekend
        ("2026-11-24 14:00", date(2026, 11, 25)),
        ("2026-11-25 14:00", date(2026, 11, 27)),  # over one that was declared late
    ],
)
def test_after_the_cut_off_the_next_market_days_batch_takes_it(placed: str, executed: date) -> None:
    simulator = simulator_of(calendar=CALENDAR.with_holiday(date(2026, 11, 26)))
    simulator.advance(at(placed))
    order = buy(simulator)
    simulator.advance(at(placed) + 7 * DAY)
    assert order.exchange_day == executed


def test_further_purchases_go_to_the_same_folio() -> None:
    simulator = simulator_of()
    first = buy(simulator)
    simulator.advance(BATCH)
    second = buy(simulator, 100_00)
    assert (first.purchase_type, second.purchase_type) == ("FRESH", "ADDITIONAL")
    simulator.advance(BATCH + DAY)
    assert first.folio == second.folio
    holding = simulator.state.holdings[FUND]
    assert (holding.units, holding.cost) == (first.units + second.units, 5100_00)


def test_another_order_for_the_fund_overwrites_the_open_one() -> None:
    simulator = simulator_of()
    first, other = buy(simulator), sell(simulator, 1_000)
    second = buy(simulator, 6000_00)
    assert (first.state, second.state) == (OrderState.CANCELLED, OrderState.OPEN)
    assert first.message == f"Overwritten by order {second.order_id}."
    assert other.state is OrderState.OPEN
    simulator.advance(BATCH)
    assert simulator.state.cash == CASH - 6000_00 + other.amount
    with pytest.raises(FundRefusal, match="is COMPLETE and cannot be cancelled"):
        simulator.cancel(second.order_id)


def test_a_cancelled_order_is_not_executed() -> None:
    simulator = simulator_of()
    order = buy(simulator)
    simulator.cancel(order.order_id)
    simulator.advance(BATCH)
    assert (order.state, simulator.state.cash) == (OrderState.CANCELLED, CASH)


def test_what_is_sold_becomes_money() -> None:
    simulator = simulator_of()
    order = sell(simulator, 82_488)
    simulator.advance(BATCH)
    assert order.state is OrderState.COMPLETE
    assert order.amount == 82_488 * order.nav // 100_000
    assert simulator.state.cash == CASH + order.amount
    assert simulator.state.holdings[HELD].units == 300_000
    assert simulator.state.holdings[HELD].cost == 30_000_00 - 30_000_00 * 82_488 // 382_488
    sell(simulator, 300_000)
    simulator.advance(BATCH + DAY)
    assert HELD not in simulator.state.holdings
    assert buy(simulator, 500_00, HELD).purchase_type == "ADDITIONAL"


def test_an_order_without_money_is_tried_in_five_batches() -> None:
    simulator = simulator_of(cash=4999_99)
    order = buy(simulator)
    messages = []
    for day in range(5):
        assert order.state is OrderState.OPEN
        simulator.advance(BATCH + day * DAY)
        messages.append(order.message)
    assert messages == [
        *(f"Insufficient fund. {count}/5" for count in (1, 2, 3, 4)),
        "Insufficient balance.",
    ]
    assert (order.state, order.exchange_order_id) == (OrderState.REJECTED, None)
    assert simulator.state.cash == 4999_99


def test_money_that_comes_meanwhile_is_taken() -> None:
    simulator = simulator_of(cash=4000_00)
    order = buy(simulator)
    simulator.advance(BATCH)
    sell(simulator, 382_488)
    simulator.advance(BATCH + DAY)  # in one batch, orders take their turn by age
    assert order.state is OrderState.OPEN
    simulator.advance(BATCH + 2 * DAY)
    assert (order.state, order.message) == (OrderState.COMPLETE, None)


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (NewOrder(isin="INF000000000", side=Side.BUY, amount=1), "INF000000000 is not available"),
        (NewOrder(isin=FUND, side=Side.BUY, amount=4999_00), r"at least 5000\.00"),
        (NewOrder(isin=FUND, side=Side.BUY, amount=5000_50), r"multiple of 1\.00"),
        (NewOrder(isin=HELD, side=Side.BUY, amount=750_00), r"multiple of 500\.00"),
        (NewOrder(isin=HELD, side=Side.SELL, units=382_489), r"382\.489 to sell and 382\.488 held"),
        (NewOrder(isin=FUND, side=Side.SELL, units=1), r"0\.000 held"),
        (NewOrder(isin=HELD, side=Side.SELL, units=999), r"at least 1\.0"),
    ],
)
def test_orders_that_break_a_rule_are_refused(order: NewOrder, text: str) -> None:
    simulator = simulator_of()
    with pytest.raises(FundRefusal, match=text):
        simulator.place(order)
    assert simulator.orders() == []


def test_a_fund_that_takes_no_purchases() -> None:
    simulator = simulator_of()
    (closed,) = [scheme for scheme in simulator.schemes.values() if not scheme.purchase_allowed]
    with pytest.raises(FundRefusal, match="not allowed"):
        buy(simulator, isin=closed.isin)


def test_a_holding_below_the_minimum_is_sold_as_a_whole() -> None:
    simulator = simulator_of()
    sell(simulator, 382_000)
    simulator.advance(BATCH)
    with pytest.raises(FundRefusal, match=r"All the 0\.488 units"):
        sell(simulator, 400)
    sell(simulator, 488)
    simulator.advance(BATCH + DAY)
    assert HELD not in simulator.state.holdings


def test_the_list_goes_back_seven_days_and_one_order_any_time() -> None:
    simulator = simulator_of()
    first = buy(simulator)
    simulator.advance(MORNING + 3 * DAY)
    second = buy(simulator, 100_00)
    assert simulator.orders() == [second, first]
    simulator.advance(MORNING + 7 * DAY)
    assert simulator.orders() == [second, first]
    simulator.advance(MORNING + 7 * DAY + 1)
    assert simulator.orders() == [second]
    assert simulator.order(first.order_id) is first
    with pytest.raises(FundRefusal, match="There is no order 7") as caught:
        simulator.order("7")
    assert caught.value.status == 404


# --- SIPs -----------------------------------------------------------------------------------------


def test_a_sip_makes_its_orders_before_the_batch_of_its_day() -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator, tag="plan")
    assert simulator.next_instalment(sip) == date(2026, 11, 30)
    simulator.advance(at("2026-11-30 01:29:59"))
    assert simulator.orders() == []
    simulator.advance(at("2026-11-30 01:30"))
    (order,) = simulator.orders()
    assert (order.variety, order.state, order.tag) == ("sip", OrderState.OPEN, "plan")
    assert (sip.completed, sip.pending) == (1, -1)
    assert sip.last_instalment_s == order.placed_s == at("2026-11-30 01:30")
    simulator.advance(at("2026-11-30 13:30"))
    assert order.state is OrderState.COMPLETE
    assert simulator.next_instalment(sip) == date(2026, 12, 7)


def test_an_instalment_on_a_weekend_is_mondays() -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator, frequency=Frequency.MONTHLY, instalment_day=5)  # a Saturday
    assert simulator.next_instalment(sip) == date(2026, 12, 7)
    simulator.advance(at("2026-12-07 01:30"))
    assert len(simulator.orders()) == 1
    assert simulator.next_instalment(sip) == date(2027, 1, 5)


def test_a_sip_ends_with_its_last_instalment() -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator, instalments=2)
    simulator.advance(MORNING + 7 * DAY)
    assert (sip.pending, sip.state) == (1, SipState.ACTIVE)
    simulator.advance(MORNING + 14 * DAY)
    assert (sip.pending, sip.completed, sip.state) == (0, 2, SipState.CANCELLED)
    assert (simulator.sips(), simulator.next_instalment(sip)) == ([], None)
    assert simulator.sip(sip.sip_id) is sip
    simulator.advance(MORNING + 60 * DAY)
    assert len(simulator.state.orders) == 2


def test_a_paused_sip_lets_its_days_pass() -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator)
    simulator.modify_sip(sip.sip_id, SipChange(state=SipState.PAUSED))
    simulator.advance(MORNING + 10 * DAY)
    assert (simulator.orders(), simulator.next_instalment(sip)) == ([], date(2026, 12, 7))
    assert simulator.sips() == [sip]
    simulator.modify_sip(sip.sip_id, SipChange(state=SipState.ACTIVE))
    simulator.advance(MORNING + 14 * DAY)
    assert len(simulator.orders()) == 1


def test_step_ups_raise_the_amount_once_a_year() -> None:
    simulator = simulator_of(cash=10**9)
    sip = begin_sip(simulator, isin=SMALL, amount=1_000_33, frequency=Frequency.QUARTERLY)
    simulator.set_step_up(sip.sip_id, {"23-11": 10})
    simulator.advance(at("2027-11-22 12:00"))
    assert sip.amount == 1_000_33
    simulator.advance(at("2027-11-23 12:00"))
    assert sip.amount == 1_100_36
    simulator.advance(at("2028-11-24 12:00"))
    assert sip.amount == 1_210_39
    amounts = {order.amount for order in simulator.state.orders.values()}
    assert amounts == {1_000_33, 1_100_36}


def test_a_step_up_keeps_to_the_funds_multiple() -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator, amount=1500_00)
    simulator.set_step_up(sip.sip_id, {"24-11": 40})
    simulator.advance(MORNING + DAY)
    assert sip.amount == 2000_00


def test_a_new_fund_needs_an_initial_amount_and_orders_it() -> None:
    simulator = simulator_of()
    with pytest.raises(FundRefusal, match="at least one investment"):
        begin_sip(simulator, isin=FUND)
    with pytest.raises(FundRefusal, match=r"at least 5000\.00"):
        begin_sip(simulator, isin=FUND, initial_amount=500_00)
    assert (simulator.sips(), simulator.orders()) == ([], [])
    begin_sip(simulator, isin=FUND, initial_amount=5000_00)
    (order,) = simulator.orders()
    assert (order.amount, order.variety, order.purchase_type) == (5000_00, "regular", "FRESH")
    begin_sip(simulator, initial_amount=5000_00)  # invested in before: not considered
    assert simulator.orders() == [order]


def test_a_sip_without_money_is_rejected_at_once() -> None:
    simulator = simulator_of(cash=0)
    begin_sip(simulator)
    simulator.advance(MORNING + 7 * DAY + 4 * 3600)
    (order,) = simulator.orders()
    assert (order.state, order.message) == (OrderState.REJECTED, "SIP: Insufficient balance.")


def test_an_order_of_ones_own_and_a_sips_leave_each_other_alone() -> None:
    simulator = simulator_of()
    begin_sip(simulator)
    simulator.advance(at("2026-11-30 01:29"))
    own = buy(simulator, 1000_00, HELD)
    simulator.advance(at("2026-11-30 02:00"))
    buy(simulator, 1500_00, HELD)
    simulator.advance(at("2026-11-30 13:30"))
    states = Counter((order.variety, str(order.state)) for order in simulator.orders())
    assert own.state is OrderState.CANCELLED
    assert states == {
        ("regular", "COMPLETE"): 1,
        ("regular", "CANCELLED"): 1,
        ("sip", "COMPLETE"): 1,
    }


def test_changes_of_a_sip() -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator, instalments=5)
    simulator.advance(MORNING + 7 * DAY)
    simulator.modify_sip(
        sip.sip_id,
        SipChange(amount=1000_00, frequency=Frequency.MONTHLY, instalment_day=10, instalments=4),
    )
    assert (sip.amount, sip.instalments, sip.pending, sip.completed) == (1000_00, 4, 3, 1)
    assert simulator.next_instalment(sip) == date(2026, 12, 10)
    simulator.modify_sip(sip.sip_id, SipChange(frequency=Frequency.WEEKLY))
    assert (sip.instalment_day, simulator.next_instalment(sip)) == (0, date(2026, 12, 7))
    simulator.modify_sip(sip.sip_id, SipChange(instalments=-1))
    assert (sip.instalments, sip.pending) == (-1, -1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (SipChange(), "nothing to change"),
        (SipChange(amount=499_00), "at least"),
        (SipChange(frequency=Frequency.MONTHLY), "instalment_day"),
        (SipChange(frequency=Frequency.MONTHLY, instalment_day=7), "one of 1, 5"),
        (SipChange(instalment_day=5), "monthly SIPs, not weekly"),
        (SipChange(instalments=0), "-1 or a number"),
        (SipChange(instalments=1), "above the 1 that"),
    ],
)
def test_a_change_that_breaks_a_rule_changes_nothing(change: SipChange, text: str) -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator)
    simulator.advance(MORNING + 7 * DAY)
    before = msgspec.json.encode(sip)
    with pytest.raises(FundRefusal, match=text):
        simulator.modify_sip(sip.sip_id, change)
    assert msgspec.json.encode(sip) == before


def test_a_sip_that_is_over_stays_so() -> None:
    simulator = simulator_of()
    sip = begin_sip(simulator)
    simulator.cancel_sip(sip.sip_id)
    for act in (
        lambda: simulator.cancel_sip(sip.sip_id),
        lambda: simulator.modify_sip(sip.sip_id, SipChange(amount=1000_00)),
    ):
        with pytest.raises(FundRefusal, match="is cancelled"):
            act()
    with pytest.raises(FundRefusal, match="There is no SIP 7"):
        simulator.sip("7")


# --- the machine ----------------------------------------------------------------------------------


def everything(simulator: FundSimulator) -> bytes:
    return msgspec.json.encode(simulator.state, order="deterministic")


def busy(simulator: FundSimulator, steps: int) -> None:
    """Some days of orders and SIPs."""
    begin_sip(simulator, instalments=3)
    for _ in range(steps):
        buy(simulator, 5000_00)
        sell(simulator, 1_000)
        simulator.advance(simulator.state.now_s + DAY)


def test_the_same_seed_and_steps_give_the_same_house() -> None:
    one, two, other = simulator_of(), simulator_of(), simulator_of(seed=8)
    for simulator in (one, two, other):
        busy(simulator, 20)
    assert everything(one) == everything(two)
    assert one.state.navs != other.state.navs


def test_it_does_not_matter_in_how_many_steps_time_passes() -> None:
    one, two = simulator_of(), simulator_of()
    for simulator in (one, two):
        begin_sip(simulator)
        buy(simulator)
    one.advance(MORNING + 40 * DAY)
    for hour in range(1, 40 * 24 + 1):
        two.advance(MORNING + hour * 3600)
    assert everything(one) == everything(two)


def test_a_house_goes_on_from_its_state() -> None:
    one = simulator_of()
    busy(one, 5)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(one.state), type=FundState)
    two = FundSimulator(default_schemes(), seed=7, now_s=0, cash=0, state=kept)
    for simulator in (one, two):
        busy(simulator, 5)
    assert everything(one) == everything(two)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["buy", "sell", "cancel", "sip", "day", "hour"]),
            st.integers(0, 400_000),
        ),
        max_size=40,
    ),
    st.integers(0, 30_000_00),
)
def test_no_money_and_no_unit_comes_from_nowhere(steps: list[tuple[str, int]], cash: int) -> None:
    simulator = simulator_of(cash=cash)
    began = {isin: holding.units for isin, holding in simulator.state.holdings.items()}
    for step, number in steps:
        try:
            if step == "buy":
                buy(simulator, number // 500 * 500 * 100, HELD)
            elif step == "sell":
                sell(simulator, number)
            elif step == "cancel" and simulator.orders():
                simulator.cancel(simulator.orders()[number % len(simulator.orders())].order_id)
            elif step == "sip":
                begin_sip(simulator, amount=number // 500 * 500_00, instalments=1 + number % 3)
            else:
                simulator.advance(simulator.state.now_s + (DAY if step == "day" else 3600))
        except FundRefusal:
            pass
    money, units = cash, Counter(began)
    for order in simulator.state.orders.values():
        if order.state is OrderState.COMPLETE:
            sign = 1 if order.side is Side.BUY else -1
            money -= sign * order.amount
            units[order.isin] += sign * order.units
    assert simulator.state.cash == money >= 0
    held = {isin: holding.units for isin, holding in simulator.state.holdings.items()}
    assert held == {isin: count for isin, count in units.items() if count}
    assert all(holding.cost >= 0 for holding in simulator.state.holdings.values())
