"""The fund simulator: a pure, seeded state machine. Commands and a clock in, orders and units out.

One investor with one cash balance. Orders wait for the batch of 13:30, which strikes the day's NAVs
and executes what is open, oldest first; units and money change hands at once. A purchase for which
there is not enough money is tried in five batches; one of a SIP in one.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import date
from typing import Final

from neo_async.calendar import Calendar
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.funds.calendar import (
    FundEventKind,
    MarketDays,
    day_of,
    next_due,
    step_ups,
)
from neo_async.exchange.funds.types import (
    Frequency,
    FundHolding,
    FundRefusal,
    FundState,
    NewOrder,
    NewSip,
    OrderRecord,
    OrderState,
    Scheme,
    Side,
    SipChange,
    SipRecord,
    SipState,
)

INSTALMENT_DAYS: Final = (1, 5, 10, 15, 20, 25)
_LISTED_S: Final = 7 * 86_400
"""Seconds that the list of orders goes back."""
_TRIES: Final = 5

_DAILY_MOVE: Final = {
    "equity": (-0.015, 0.016),
    "elss": (-0.015, 0.016),
    "balanced": (-0.007, 0.0078),
    "debt": (-0.001, 0.0014),
    "liquid": (0.0001, 0.0003),
}
"""Bounds of what a NAV moves by from one market day to the next."""

_STOCK: Final = (("INF205K01NT8", 382_488, 30_000_00), ("INF666M01451", 1_334, 2_500_05))
"""First holdings of the investor: ISIN, units, cost."""


class FundSimulator:
    def __init__(
        self,
        schemes: Sequence[Scheme],
        *,
        seed: int,
        now_s: int,
        cash: int,
        calendar: Calendar = CALENDAR,
        state: FundState | None = None,
    ) -> None:
        """`state` is the state to go on from; with it, only `seed` and `schemes` still count."""
        self.schemes = {scheme.isin: scheme for scheme in schemes}
        self._seed = seed
        self._days = MarketDays(calendar)
        self.state = state if state is not None else self._opening(now_s, cash)
        for isin, scheme in self.schemes.items():  # new ones may have come since that state
            self.state.navs.setdefault(isin, scheme.opening_nav)

    def advance(self, now_s: int) -> None:
        """Let time pass, and what is due in it happen."""
        state = self.state
        while (event := self._days.next_event(state.now_s)).time_s <= now_s:
            state.now_s = event.time_s
            if event.turn is FundEventKind.SIPS:
                self._run_sips(event.day)
            else:
                self._run_batch(event.day)
        state.now_s = max(state.now_s, now_s)

    # --- orders -------------------------------------------------------------------------------

    def place(self, order: NewOrder) -> OrderRecord:
        """Take an order for the next batch. One that is open for the same fund and side gives way.

        Raises FundRefusal.
        """
        scheme = self.scheme(order.isin)
        if order.side is Side.BUY:
            self._check_purchase(scheme, order.amount)
        else:
            self._check_redemption(scheme, order.units)
        record = self._open(order)
        for other in self._open_orders():
            if (
                other is not record
                and other.variety == "regular"
                and (other.isin, other.side) == (order.isin, order.side)
            ):
                other.state = OrderState.CANCELLED
                other.message = f"Overwritten by order {record.order_id}."
        return record

    def cancel(self, order_id: str) -> OrderRecord:
        """Cancel an order. Raises FundRefusal when there is no such order, or it is not open."""
        order = self.order(order_id)
        if order.state is not OrderState.OPEN:
            raise FundRefusal(
                f"Order {order_id} is {order.state} and cannot be cancelled.",
                error_type="OrderException",
            )
        order.state = OrderState.CANCELLED
        order.message = "Cancelled by the user."
        return order

    def order(self, order_id: str) -> OrderRecord:
        """Return an order of any age. Raises FundRefusal when there is none."""
        try:
            return self.state.orders[order_id]
        except KeyError:
            raise _unknown("order", order_id) from None

    def orders(self) -> list[OrderRecord]:
        """Return the orders of the last seven days, newest first."""
        since = self.state.now_s - _LISTED_S
        recent = [order for order in self.state.orders.values() if order.placed_s >= since]
        return recent[::-1]

    # --- SIPs ---------------------------------------------------------------------------------

    def place_sip(self, sip: NewSip) -> SipRecord:
        """Begin a SIP; where nothing was invested in the fund before, with an order of its initial
        amount. Raises FundRefusal."""
        scheme = self.scheme(sip.isin)
        _check_schedule(sip.frequency, sip.instalment_day, sip.instalments)
        self._check_instalment(scheme, sip.amount)
        if sip.isin not in self.state.invested:
            if not sip.initial_amount:
                raise FundRefusal(
                    "There has to be at least one investment in the fund before a SIP: "
                    "`initial_amount` is missing."
                )
            initial = NewOrder(isin=sip.isin, side=Side.BUY, amount=sip.initial_amount, tag=sip.tag)
            self.place(initial)
        today = day_of(self.state.now_s)
        record = SipRecord(
            sip_id=self._number("sip", 15),
            isin=sip.isin,
            amount=sip.amount,
            frequency=sip.frequency,
            instalment_day=sip.instalment_day,
            instalments=sip.instalments,
            pending=sip.instalments,
            tag=sip.tag,
            created_s=self.state.now_s,
            last_instalment_s=self.state.now_s,
            due=next_due(sip.frequency, sip.instalment_day, today),
            stepped_to=today,
        )
        self.state.sips[record.sip_id] = record
        return record

    def modify_sip(self, sip_id: str, change: SipChange) -> SipRecord:
        """Change a SIP. Raises FundRefusal, and changes nothing then."""
        sip = self._live_sip(sip_id)
        if change == SipChange():
            raise FundRefusal("There is nothing to change.")
        frequency = sip.frequency if change.frequency is None else change.frequency
        day = sip.instalment_day if change.instalment_day is None else change.instalment_day
        if frequency is not Frequency.MONTHLY and change.instalment_day is None:
            day = 0
        instalments = sip.instalments if change.instalments is None else change.instalments
        _check_schedule(frequency, day, instalments)
        if 0 < instalments <= sip.completed:
            raise FundRefusal(
                f"`instalments` has to be above the {sip.completed} that are completed."
            )
        if change.amount is not None:
            self._check_instalment(self.scheme(sip.isin), change.amount)
            sip.amount = change.amount
        if (frequency, day) != (sip.frequency, sip.instalment_day):
            sip.frequency, sip.instalment_day = frequency, day
            sip.due = next_due(frequency, day, day_of(self.state.now_s))
        sip.instalments = instalments
        sip.pending = -1 if instalments == -1 else instalments - sip.completed
        if change.state is not None:
            sip.state = change.state
        return sip

    def cancel_sip(self, sip_id: str) -> SipRecord:
        """Cancel a SIP. Raises FundRefusal when there is no such SIP, or it has ended."""
        sip = self._live_sip(sip_id)
        self._end(sip)
        return sip

    def set_step_up(self, sip_id: str, step_up: dict[str, int]) -> None:
        """Let a SIP's amount grow by a percentage every year: `{"05-05": 10}`, day and month.
        Kite's API has no call for it; its app sets it."""
        self._live_sip(sip_id).step_up = step_up

    def sip(self, sip_id: str) -> SipRecord:
        """Return a SIP, a cancelled one too. Raises FundRefusal when there is none."""
        try:
            return self.state.sips[sip_id]
        except KeyError:
            raise _unknown("SIP", sip_id) from None

    def sips(self) -> list[SipRecord]:
        """Return the SIPs that are active or paused, oldest first."""
        return [sip for sip in self.state.sips.values() if sip.state is not SipState.CANCELLED]

    def next_instalment(self, sip: SipRecord) -> date | None:
        return None if sip.due is None else self._days.market_day_from(sip.due)

    # --- holdings and NAVs
    # -------------------------------------------------------------------------

    def holdings(self) -> list[FundHolding]:
        return list(self.state.holdings.values())

    def nav(self, isin: str) -> int:
        """Return the last NAV that was struck, on `nav_day`."""
        return self.state.navs[isin]

    def scheme(self, isin: str) -> Scheme:
        """Return a scheme. Raises FundRefusal when there is none."""
        try:
            return self.schemes[isin]
        except KeyError:
            raise FundRefusal(f"`tradingsymbol` {isin} is not available.") from None

    # --- rules --------------------------------------------------------------------------------

    def _check_purchase(self, scheme: Scheme, amount: int) -> None:
        minimum = (
            scheme.minimum_additional
            if scheme.isin in self.state.invested
            else scheme.minimum_purchase
        )
        self._check_amount(scheme, amount, minimum)

    def _check_instalment(self, scheme: Scheme, amount: int) -> None:
        self._check_amount(scheme, amount, scheme.minimum_additional)

    def _check_amount(self, scheme: Scheme, amount: int, minimum: int) -> None:
        if not scheme.purchase_allowed:
            raise FundRefusal(f"Purchases of {scheme.name} are not allowed.")
        if amount < minimum:
            raise FundRefusal(f"`amount` has to be at least {minimum / 100:.2f}.")
        if amount % scheme.purchase_multiple:
            raise FundRefusal(
                f"`amount` has to be a multiple of {scheme.purchase_multiple / 100:.2f}."
            )

    def _check_redemption(self, scheme: Scheme, units: int) -> None:
        if not scheme.redemption_allowed:
            raise FundRefusal(f"Redemptions of {scheme.name} are not allowed.")
        holding = self.state.holdings.get(scheme.isin)
        held = holding.units if holding is not None else 0
        # An open regular order would be overwritten: it needs no units of its own.
        if units > held:
            raise FundRefusal(
                f"Insufficient units: {units / 1000:.3f} to sell and {held / 1000:.3f} held.",
                error_type="OrderException",
            )
        if held < scheme.minimum_redemption:
            if units != held:
                raise FundRefusal(f"All the {held / 1000:.3f} units have to be sold.")
            return
        if units < scheme.minimum_redemption:
            raise FundRefusal(f"`quantity` has to be at least {scheme.minimum_redemption / 1000}.")
        if units % scheme.redemption_multiple:
            raise FundRefusal(
                f"`quantity` has to be a multiple of {scheme.redemption_multiple / 1000}."
            )

    def _live_sip(self, sip_id: str) -> SipRecord:
        sip = self.sip(sip_id)
        if sip.state is SipState.CANCELLED:
            raise FundRefusal(f"SIP {sip_id} is cancelled.")
        return sip

    # --- the day ------------------------------------------------------------------------------

    def _run_sips(self, day: date) -> None:
        """Make the orders of SIPs whose day it is."""
        for sip in self.sips():
            assert sip.due is not None
            self._step_up(sip, day)
            if sip.due > day:
                continue
            sip.due = next_due(sip.frequency, sip.instalment_day, sip.due)
            if sip.state is SipState.PAUSED:
                continue
            order = NewOrder(isin=sip.isin, side=Side.BUY, amount=sip.amount, tag=sip.tag)
            self._open(order, variety="sip")
            sip.completed += 1
            sip.last_instalment_s = self.state.now_s
            if sip.pending != -1:
                sip.pending -= 1
                if not sip.pending:
                    self._end(sip)

    def _step_up(self, sip: SipRecord, day: date) -> None:
        multiple = self.schemes[sip.isin].purchase_multiple
        for when in step_ups(sip.step_up, sip.stepped_to, day):
            raised = sip.amount * (100 + sip.step_up[when]) // 100
            sip.amount = raised // multiple * multiple
        sip.stepped_to = day

    def _run_batch(self, day: date) -> None:
        self._strike(day)
        settlement_id = self._number(f"settlement {day}", 7)
        for order in self._open_orders():
            if order.side is Side.BUY:
                self._buy(order, day, settlement_id)
            else:
                self._sell(order, day, settlement_id)

    def _strike(self, day: date) -> None:
        """Strike the day's NAVs."""
        chance = random.Random(f"{self._seed}|nav|{day}")
        navs = self.state.navs
        for isin, scheme in self.schemes.items():
            navs[isin] = max(1, round(navs[isin] * (1 + chance.uniform(*_move_of(scheme)))))
        self.state.nav_day = day

    def _buy(self, order: OrderRecord, day: date, settlement_id: str) -> None:
        state = self.state
        if order.amount > state.cash:
            self._lack_money(order)
            return
        holding = state.holdings.get(order.isin)
        if holding is None:
            holding = FundHolding(isin=order.isin, folio=self._number("folio", 10), units=0, cost=0)
            state.holdings[order.isin] = holding
        self._complete(order, day, settlement_id)
        # What is less than a thousandth of a unit stays with the fund.
        order.units = order.amount * 100_000 // order.nav
        order.folio = holding.folio
        state.cash -= order.amount
        holding.units += order.units
        holding.cost += order.amount
        state.invested.add(order.isin)

    def _lack_money(self, order: OrderRecord) -> None:
        order.tries += 1
        if order.variety == "sip":
            order.state, order.message = OrderState.REJECTED, "SIP: Insufficient balance."
        elif order.tries == _TRIES:
            order.state, order.message = OrderState.REJECTED, "Insufficient balance."
        else:
            order.message = f"Insufficient fund. {order.tries}/{_TRIES}"

    def _sell(self, order: OrderRecord, day: date, settlement_id: str) -> None:
        holding = self.state.holdings[order.isin]
        self._complete(order, day, settlement_id)
        order.amount = order.units * order.nav // 100_000
        order.folio = holding.folio
        self.state.cash += order.amount
        holding.cost -= holding.cost * order.units // holding.units
        holding.units -= order.units
        if not holding.units:
            del self.state.holdings[order.isin]

    def _complete(self, order: OrderRecord, day: date, settlement_id: str) -> None:
        order.state = OrderState.COMPLETE
        order.message = None
        order.nav = self.state.navs[order.isin]
        order.exchange_order_id = self._number("exchange", 9)
        order.exchange_day = day
        order.settlement_id = settlement_id

    # --- records ------------------------------------------------------------------------------

    def _opening(self, now_s: int, cash: int) -> FundState:
        state = FundState(
            now_s=now_s,
            cash=cash,
            nav_day=self._days.market_day_before(day_of(now_s)),
            navs={isin: scheme.opening_nav for isin, scheme in self.schemes.items()},
        )
        for number, (isin, units, cost) in enumerate(_STOCK):
            if isin in self.schemes:
                folio = str(3_108_290_884 + number)
                state.holdings[isin] = FundHolding(isin=isin, folio=folio, units=units, cost=cost)
                state.invested.add(isin)
        return state

    def _open(self, order: NewOrder, variety: str = "regular") -> OrderRecord:
        purchase_type = None
        if order.side is Side.BUY:
            purchase_type = "ADDITIONAL" if order.isin in self.state.invested else "FRESH"
        record = OrderRecord(
            order_id=str(uuid.UUID(int=self._chance("order").getrandbits(128), version=4)),
            isin=order.isin,
            side=order.side,
            amount=order.amount,
            units=order.units,
            variety=variety,
            purchase_type=purchase_type,
            tag=order.tag,
            placed_s=self.state.now_s,
        )
        self.state.orders[record.order_id] = record
        return record

    def _open_orders(self) -> list[OrderRecord]:
        orders = self.state.orders.values()
        return [order for order in orders if order.state is OrderState.OPEN]

    def _end(self, sip: SipRecord) -> None:
        sip.state = SipState.CANCELLED
        sip.due = None

    def _number(self, kind: str, digits: int) -> str:
        """Return a new number of so many digits; the same seed gives the same numbers."""
        return str(self._chance(kind).randrange(10 ** (digits - 1), 10**digits))

    def _chance(self, kind: str) -> random.Random:
        self.state.numbers += 1
        return random.Random(f"{self._seed}|{kind}|{self.state.numbers}")


def _move_of(scheme: Scheme) -> tuple[float, float]:
    return _DAILY_MOVE[scheme.scheme_type]


def _check_schedule(frequency: Frequency, instalment_day: int, instalments: int) -> None:
    if frequency is Frequency.MONTHLY:
        if instalment_day not in INSTALMENT_DAYS:
            days = ", ".join(map(str, INSTALMENT_DAYS))
            raise FundRefusal(f"`instalment_day` has to be one of {days}.")
    elif instalment_day:
        raise FundRefusal(f"`instalment_day` is for monthly SIPs, not {frequency} ones.")
    if instalments != -1 and instalments < 1:
        raise FundRefusal("`instalments` has to be -1 or a number above 0.")


def _unknown(kind: str, number: str) -> FundRefusal:
    return FundRefusal(f"There is no {kind} {number}.", error_type="GeneralException", status=404)
