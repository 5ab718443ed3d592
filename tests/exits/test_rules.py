"""The rules of exit plans, against a broker that fills, refuses, and loses answers at will."""

import math
import random
from datetime import date
from decimal import Decimal

import msgspec
import pytest

from neo_async.exits.outcomes import (
    MAX_REFUSALS,
    apply_accepted,
    apply_cancel_accepted,
    apply_entry,
    apply_entry_cancel_accepted,
    apply_entry_cancel_refused,
    apply_exit,
    apply_position,
    apply_refused,
    apply_rejected,
    begin_day,
)
from neo_async.exits.price_rules import advance, apply_price, close_at_market
from neo_async.exits.rules import (
    CancelEntry,
    CancelExit,
    ChangeExit,
    PlaceExit,
    ReadPosition,
    Timers,
    begin,
    exit_terms,
    find,
    next_action,
    next_time,
)
from neo_async.exits.state import (
    Aim,
    ExitReason,
    PlanState,
    PlanStatus,
    PlanTerms,
    Resting,
    Unprotected,
)
from neo_async.model.enums import OrderType, Product, Segment, Side

D = Decimal
DAY = date(2026, 11, 23)


def terms(**changes):
    defaults = {
        "segment": Segment.NSE_CM,
        "symbol": "ITBEES-EQ",
        "instrument": "nse_cm|19084",
        "side": Side.BUY,
        "product": Product.MIS,
        "tick": D("0.01"),
        "largest": 100,
        "target": D("40.10"),
        "stop": D("38.90"),
        "stop_limit": D("0.20"),
    }
    return PlanTerms(**{**defaults, **changes})


def plan(quantity=10, **changes):
    agreed = terms(**changes)
    return PlanState(id="abc", terms=agreed, day=DAY, entry_quantity=quantity, stop=agreed.stop)


def due(state, timers, now):
    """Return the action that is due, and begin it."""
    advance(state, timers, now)
    action = next_action(state, timers, now)
    if action is not None:
        begin(state, timers, action, now)
    return action


def protected(quantity=10, **changes):
    """Return a plan whose entry is filled, and whose stop rests at the broker."""
    state, timers = plan(quantity, **changes), Timers()
    apply_entry(state, quantity, is_final=True)
    action = due(state, timers, 0.0)
    apply_accepted(state, timers, action.step, "1001")
    return state, timers


class TestEntry:
    def test_the_first_fill_places_a_stop_at_once(self):
        state, timers = plan(), Timers()
        assert due(state, timers, 0.0) is None
        apply_entry(state, 4, is_final=False)
        action = due(state, timers, 1.0)
        assert action == PlaceExit(1, 4, exit_terms(state))
        assert action.terms.order_type is OrderType.SL
        assert (action.terms.trigger, action.terms.price) == (D("38.90"), D("38.70"))

    def test_growing_fills_change_the_quantity_of_the_stop(self):
        state, timers = plan(), Timers()
        apply_entry(state, 4, is_final=False)
        due(state, timers, 1.0)
        apply_accepted(state, timers, 1, "1001")
        apply_entry(state, 6, is_final=False)
        assert due(state, timers, 1.1) is None  # fills are joined for 200 ms
        assert next_time(state, timers, 1.1) == pytest.approx(1.2)
        apply_entry(state, 10, is_final=True)
        action = due(state, timers, 1.2)
        assert (type(action), action.step, action.quantity) == (ChangeExit, 1, 10)

    def test_more_than_the_freeze_quantity_is_exited_in_slices(self):
        state, timers = plan(250), Timers()
        apply_entry(state, 250, is_final=True)
        sizes = []
        for number in ("1001", "1002", "1003"):
            action = due(state, timers, 0.0)
            sizes.append(action.quantity)
            apply_accepted(state, timers, action.step, number)
        assert sizes == [100, 100, 50]
        assert due(state, timers, 1.0) is None

    def test_an_entry_that_ends_without_a_fill_ends_the_plan(self):
        state = plan()
        apply_entry(state, 0, is_final=True)
        assert state.status is PlanStatus.CANCELLED

    def test_the_rest_of_an_entry_is_cancelled_once_an_exit_fills(self):
        state, timers = plan(), Timers()
        apply_entry(state, 4, is_final=False)
        apply_accepted(state, timers, due(state, timers, 0.0).step, "1001")
        apply_exit(state, timers, 1, 1.0, filled=4, is_final=True)
        assert due(state, timers, 1.0) == CancelEntry()
        apply_entry_cancel_refused(timers, 1.0)
        assert due(state, timers, 1.0) is None
        assert due(state, timers, 1.6) == CancelEntry()
        apply_entry(state, 4, is_final=True)
        assert (state.status, state.exited_by) == (PlanStatus.EXITED, ExitReason.STOP)


class TestTarget:
    def test_the_stop_is_changed_into_the_target(self):
        state, timers = protected()
        apply_price(state, timers, D("40.10"), 5.0)
        action = due(state, timers, 5.0)
        assert (type(action), action.step, action.terms.price) == (ChangeExit, 1, D("40.10"))
        assert action.terms.order_type is OrderType.LIMIT
        apply_accepted(state, timers, 1)
        apply_exit(state, timers, 1, 6.0, filled=10, is_final=True)
        assert (state.status, state.exited_by) == (PlanStatus.EXITED, ExitReason.TARGET)

    def test_a_price_that_falls_back_makes_it_a_stop_again(self):
        state, timers = protected()
        apply_price(state, timers, D("40.10"), 5.0)
        due(state, timers, 5.0)
        apply_accepted(state, timers, 1)
        apply_price(state, timers, D("39.60"), 6.0)
        assert due(state, timers, 6.0) is None
        apply_price(state, timers, D("39.40"), 7.0)
        action = due(state, timers, 7.0)
        assert (action.terms.aim, action.terms.trigger) == (Aim.STOP, D("38.90"))

    def test_a_fall_through_both_prices_closes_at_the_market(self):
        state, timers = protected()
        apply_price(state, timers, D("40.10"), 5.0)
        due(state, timers, 5.0)
        apply_price(state, timers, D("38.80"), 5.1)  # the change has no answer yet
        assert due(state, timers, 5.1) is None
        apply_accepted(state, timers, 1)
        action = due(state, timers, 5.2)
        assert (type(action), action.terms.order_type) == (ChangeExit, OrderType.MARKET)

    def test_a_broker_that_changes_no_types_gets_a_cancel_and_a_new_order(self):
        state, timers = protected()
        apply_price(state, timers, D("40.10"), 5.0)
        due(state, timers, 5.0)
        apply_refused(state, timers, 1, "order type cannot be changed", 5.0)
        assert due(state, timers, 5.0) == CancelExit(1)
        apply_accepted(state, timers, 1)
        assert due(state, timers, 5.1) is None  # the book has not shown it cancelled
        apply_exit(state, timers, 1, 5.2, filled=3, is_final=True)
        action = due(state, timers, 5.3)
        assert (type(action), action.step, action.quantity) == (PlaceExit, 2, 7)
        assert action.terms.aim is Aim.TARGET

    def test_a_resting_target_is_closed_at_the_market_when_the_stop_is_reached(self):
        state, timers = plan(resting=Resting.TARGET), Timers()
        state.aim = Aim.TARGET
        apply_entry(state, 10, is_final=True)
        action = due(state, timers, 0.0)
        assert action.terms.order_type is OrderType.LIMIT
        apply_accepted(state, timers, 1, "1001")
        apply_price(state, timers, D("39.50"), 1.0)
        assert due(state, timers, 1.0) is None
        apply_price(state, timers, D("38.90"), 2.0)
        assert due(state, timers, 2.0).terms.order_type is OrderType.MARKET


class TestStop:
    def test_a_stop_that_does_not_fill_is_chased(self):
        state, timers = protected()
        apply_price(state, timers, D("38.50"), 5.0)
        assert due(state, timers, 5.0) is None
        assert next_time(state, timers, 5.0) == 7.0
        action = due(state, timers, 7.0)
        assert (type(action), action.terms.order_type) == (ChangeExit, OrderType.MARKET)
        apply_accepted(state, timers, 1)
        assert due(state, timers, 8.0) is None
        again = due(state, timers, 9.0)
        assert again.terms.revision == action.terms.revision + 1

    def test_a_touch_that_triggers_nothing_is_forgotten(self):
        state, timers = protected()
        apply_price(state, timers, D("38.90"), 5.0)
        apply_price(state, timers, D("39.20"), 5.5)
        assert due(state, timers, 8.0) is None

    def test_a_triggered_stop_is_chased_even_if_the_price_recovers(self):
        state, timers = protected()
        apply_exit(state, timers, 1, 5.0, filled=2, is_triggered=True)
        apply_price(state, timers, D("39.20"), 5.5)
        assert due(state, timers, 7.0).terms.order_type is OrderType.MARKET

    def test_the_stop_trails_the_best_price_by_steps(self):
        state, timers = protected(trail=D("0.50"), trail_step=D("0.10"), target=None)
        apply_price(state, timers, D("39.45"), 5.0)
        assert due(state, timers, 5.0) is None  # 38.95 is less than a step above 38.90
        apply_price(state, timers, D("39.60"), 6.0)
        action = due(state, timers, 6.0)
        assert (action.terms.trigger, action.is_trailing) == (D("39.10"), True)
        apply_accepted(state, timers, 1)
        apply_price(state, timers, D("39.90"), 6.5)
        assert due(state, timers, 6.5) is None  # once a second at most
        apply_price(state, timers, D("39.70"), 6.8)
        assert due(state, timers, 7.0).terms.trigger == D("39.40")

    def test_a_short_position_is_mirrored(self):
        state, timers = plan(side=Side.SELL, target=D("38.00"), stop=D("40.00")), Timers()
        apply_entry(state, 10, is_final=True)
        action = due(state, timers, 0.0)
        assert (action.terms.trigger, action.terms.price) == (D("40.00"), D("40.20"))
        apply_accepted(state, timers, 1, "1001")
        apply_price(state, timers, D("37.90"), 1.0)
        assert due(state, timers, 1.0).terms.aim is Aim.TARGET


class TestRefusals:
    @pytest.mark.parametrize("policy", [Unprotected.TELL, Unprotected.EXIT])
    def test_a_refused_stop_is_tried_again_and_then_told_or_closed(self, policy):
        state, timers = plan(on_unprotected=policy), Timers()
        apply_entry(state, 10, is_final=True)
        now = 0.0
        for _ in range(MAX_REFUSALS):
            action = due(state, timers, now)
            assert action.terms.aim is Aim.STOP
            apply_refused(state, timers, action.step, "margin", now)
            now += 5.0
            if timers.retry_at <= now:
                assert due(state, timers, now) == ReadPosition()
            apply_position(state, timers, 10)
        assert (state.unprotected, state.reason) == (10, "margin")
        action = due(state, timers, now)
        if policy is Unprotected.EXIT:
            assert action.terms.aim is Aim.CLOSE
        else:
            assert action is None
            assert due(state, timers, now + 15).terms.aim is Aim.STOP

    def test_a_stop_that_the_risk_system_rejects_later_is_placed_again(self):
        state, timers = protected()
        apply_rejected(state, timers, 1, "RMS: margin", 1.0)
        assert due(state, timers, 1.0) is None
        assert due(state, timers, 2.0) == ReadPosition()
        apply_position(state, timers, 10)
        assert due(state, timers, 2.0).step == 2


class TestClosedElsewhere:
    def test_an_exit_that_the_broker_ended_waits_for_the_position(self):
        state, timers = protected()
        apply_exit(state, timers, 1, 5.0, filled=0, is_final=True)
        assert due(state, timers, 5.0) == ReadPosition()
        assert due(state, timers, 5.1) is None
        apply_position(state, timers, 0)
        assert (state.status, state.exited_by) == (PlanStatus.EXITED, ExitReason.ELSEWHERE)

    def test_what_is_still_held_is_protected_again(self):
        state, timers = protected()
        apply_exit(state, timers, 1, 5.0, filled=0, is_final=True)
        due(state, timers, 5.0)
        apply_position(state, timers, 6)
        action = due(state, timers, 5.1)
        assert (type(action), action.quantity, action.step) == (PlaceExit, 6, 2)

    def test_a_stop_larger_than_the_position_shrinks(self):
        state, timers = protected()
        timers.must_read_position = True
        due(state, timers, 1.0)
        apply_position(state, timers, 4)
        assert due(state, timers, 1.0).quantity == 4

    def test_a_flat_position_cancels_the_stop(self):
        state, timers = protected()
        timers.must_read_position = True
        due(state, timers, 1.0)
        apply_position(state, timers, 0)
        assert due(state, timers, 1.0) == CancelExit(1)
        apply_accepted(state, timers, 1)
        apply_exit(state, timers, 1, 2.0, filled=0, is_final=True)
        assert state.status is PlanStatus.EXITED


class TestState:
    def test_a_plan_survives_the_journal(self):
        state, timers = protected(trail=D("0.5"))
        apply_price(state, timers, D("41"), 1.0)
        again = msgspec.json.decode(msgspec.json.encode(state), type=PlanState)
        assert again == state

    def test_a_final_plan_requests_nothing(self):
        state, timers = protected()
        apply_exit(state, timers, 1, 1.0, filled=10, is_final=True)
        apply_price(state, timers, D("38"), 2.0)
        assert due(state, timers, 10.0) is None
        assert state.status is PlanStatus.EXITED


class Broker:
    """A broker that does with a plan's requests what its random numbers say."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        side = self.random.choice(list(Side))
        sign = 1 if side is Side.BUY else -1
        target, stop = D(100) + sign * D(2), D(100) - sign * D(2)
        agreed = terms(
            side=side,
            target=self.random.choice([target, target, None]),
            stop=stop,
            trail=self.random.choice([None, D("1.5")]),
            tick=D("0.05"),
            largest=self.random.choice([30, 100]),
            resting=self.random.choice(list(Resting)),
            on_unprotected=self.random.choice(list(Unprotected)),
        )
        quantity = self.random.randint(1, 100)
        aim = Aim.TARGET if agreed.resting is Resting.TARGET and agreed.target else Aim.STOP
        self.state = PlanState(
            id="p", terms=agreed, day=DAY, entry_quantity=quantity, stop=stop, aim=aim
        )
        self.timers = Timers()
        self.changes_type = self.random.random() < 0.7
        self.now, self.price = 0.0, D(100)
        self.position = 0
        self.entry_filled, self.is_entry_open = 0, True
        self.orders = {}  # step: [quantity, filled, is_open, terms, is_known]
        self.unanswered = []  # (action, took effect)
        self.steps = set()
        self.filled = 0

    def request(self, action):
        match action:
            case PlaceExit(step, quantity, agreed):
                assert step not in self.steps, "a step was used twice"
                self.steps.add(step)
                taken = self.random.random() < 0.85
                if taken:
                    self.orders[step] = [quantity, 0, True, agreed]
            case ChangeExit(step, quantity, agreed):
                order = self.orders[step]
                taken = order[2] and self.random.random() < 0.85
                if agreed.order_type is not order[3].order_type and not self.changes_type:
                    taken = False
                if taken:
                    order[0], order[3] = max(quantity, order[1]), agreed
            case CancelExit(step):
                order = self.orders[step]
                taken = order[2] and self.random.random() < 0.9
                if taken and self.random.random() < 0.8:  # else the exchange forgets the cancel
                    order[2] = False
            case CancelEntry():
                taken = self.is_entry_open and self.random.random() < 0.9
                if taken and self.random.random() < 0.8:
                    self.is_entry_open = False
            case ReadPosition():
                taken = True
        self.unanswered.append((action, taken))

    def answer(self):
        action, taken = self.unanswered.pop(self.random.randrange(len(self.unanswered)))
        match action:
            case CancelEntry():
                if taken:
                    apply_entry_cancel_accepted(self.timers, self.now)
                else:
                    apply_entry_cancel_refused(self.timers, self.now)
            case CancelExit(step) if taken:
                apply_cancel_accepted(self.state, self.timers, step, self.now)
            case ReadPosition():
                if any(
                    order[1] > find(self.state, step).filled for step, order in self.orders.items()
                ) or (self.entry_filled > self.state.entry_filled):
                    self.unanswered.append((action, taken))  # fills come before the position
                    return
                apply_position(self.state, self.timers, self.position)
            case _ if taken:
                apply_accepted(self.state, self.timers, action.step, str(1000 + action.step))
            case _:
                apply_refused(
                    self.state,
                    self.timers,
                    action.step,
                    "no",
                    self.now,
                    is_refusal=self.random.random() < 0.7,
                )

    def fill_entry(self):
        if self.is_entry_open:
            size = self.random.randint(1, self.state.entry_quantity - self.entry_filled)
            self.entry_filled += size
            self.position += self.state.terms.sign * size
            if self.entry_filled == self.state.entry_quantity:
                self.is_entry_open = False

    def fill_exit(self):
        live = [order for order in self.orders.values() if order[2]]
        if live:
            order = self.random.choice(live)
            size = self.random.randint(1, order[0] - order[1]) if order[0] > order[1] else 0
            order[1] += size
            self.position -= self.state.terms.sign * size
            order[2] = order[1] < order[0]

    def close_elsewhere(self):
        """The broker squares the position off: it cancels the orders first, and says so. Requests
        that reach it meanwhile are beyond what any client can prevent."""
        if self.unanswered:
            return
        self.report()
        for order in self.orders.values():
            order[2] = False
        self.is_entry_open = False
        self.position = 0
        self.report()
        self.timers.must_read_position = True  # as the position feed does

    def begin_day(self):
        """End the day: every order expires, and the position is carried over."""
        if self.unanswered:
            return
        self.report()
        for order in self.orders.values():
            order[2] = False
        self.is_entry_open = False
        self.now += 60_000.0
        begin_day(self.state, self.timers, date(2026, 11, 25), self.now + 100.0)
        self.report()

    def report(self):
        apply_entry(self.state, self.entry_filled, is_final=not self.is_entry_open)
        for order in self.state.exits:
            actual = self.orders.get(order.step)
            if actual is not None:
                if not order.number:
                    continue  # the answer to the placement comes first
                apply_exit(
                    self.state,
                    self.timers,
                    order.step,
                    self.now,
                    filled=actual[1],
                    is_final=not actual[2],
                )

    def turn(self):
        choice = self.random.random()
        if choice < 0.15:
            self.fill_entry()
        elif choice < 0.25:
            self.fill_exit()
        elif choice < 0.55:
            self.price += self.random.choice([-3, -1, 1, 3]) * D("0.35")
            apply_price(self.state, self.timers, self.price, self.now)
        elif choice < 0.75 and self.unanswered:
            self.answer()
        elif choice < 0.76:
            self.close_elsewhere()
        elif choice < 0.765:
            self.begin_day()
        elif choice < 0.9:
            self.report()
        self.now += self.random.choice([0.0, 0.1, 1.0, 5.0])
        for _ in range(20):
            action = due(self.state, self.timers, self.now)
            self.check()
            if action is None:
                self.check_protection()
                return
            self.request(action)
        raise AssertionError(f"requests without end: {action}")

    def check(self):
        assert self.state.working <= max(self.state.held, 0) or self.shrinks(), self.state
        assert self.state.terms.sign * self.position >= 0, "the position was turned round"
        under_way = [one for one, _ in self.unanswered if hasattr(one, "step")]
        assert len({one.step for one in under_way}) == len(under_way)

    def check_protection(self):
        """Every unit that is held has an exit order, one on its way, or a time at which one is
        asked for."""
        state, timers = self.state, self.timers
        if state.status.is_final or state.held <= state.working:
            return
        if self.unanswered or timers.must_read_position:
            return
        assert next_time(state, timers, self.now) < math.inf, "nothing wakes the plan"

    def shrinks(self):
        """Whether units were closed elsewhere, and the orders are being cut down to the rest."""
        return self.state.closed_elsewhere > 0

    def finish(self):
        """End the faults: every request is answered, and the price goes through the stop."""
        self.is_entry_open = self.is_entry_open and self.entry_filled == 0
        for _ in range(400):
            while self.unanswered:
                self.report()
                self.answer()
            self.report()
            if self.state.status.is_final:
                return
            self.now += 5.0
            self.is_entry_open = False
            apply_price(
                self.state, self.timers, D(1) if self.state.terms.sign > 0 else D(999), self.now
            )
            action = due(self.state, self.timers, self.now)
            if action is not None:
                self.request(action)
            for order in self.orders.values():
                if order[2]:
                    self.position -= self.state.terms.sign * (order[0] - order[1])
                    order[1], order[2] = order[0], False
            self.check()
        raise AssertionError(f"the plan does not end: {self.state}")


@pytest.mark.parametrize("block", range(10))
def test_no_position_is_turned_round_and_every_plan_ends(block):
    for seed in range(block * 100, block * 100 + 100):
        broker = Broker(seed)
        for _ in range(120):
            broker.turn()
        broker.finish()
        assert broker.position == 0, seed


def test_a_fill_that_the_position_showed_first_is_no_close_by_hand():
    state, timers = protected()
    timers.must_read_position = True
    due(state, timers, 1.0)
    apply_position(state, timers, 0)  # the message of the stop's fill was lost
    assert due(state, timers, 1.0) == CancelExit(1)
    apply_exit(state, timers, 1, 2.0, filled=10, is_final=True)
    assert (state.status, state.exited_by) == (PlanStatus.EXITED, ExitReason.STOP)


class TestFailures:
    def test_only_refusals_of_a_stop_that_is_lacking_close_at_the_market(self):
        state, timers = plan(on_unprotected=Unprotected.EXIT), Timers()
        apply_entry(state, 10, is_final=True)
        now = 0.0
        for _ in range(2 * MAX_REFUSALS):
            action = due(state, timers, now)
            apply_refused(state, timers, action.step, "not sent", now, is_refusal=False)
            now += 2.0  # never put off for longer
        assert due(state, timers, now).terms.aim is Aim.STOP

    def test_a_refused_change_of_a_stop_that_rests_closes_nothing(self):
        state, timers = protected(on_unprotected=Unprotected.EXIT, trail=D("0.50"), target=None)
        now = 5.0
        for index in range(2 * MAX_REFUSALS):
            apply_price(state, timers, D("39.60") + index, now)
            action = due(state, timers, now)
            if isinstance(action, ChangeExit):
                apply_refused(state, timers, action.step, "band", now)
            elif isinstance(action, ReadPosition):
                apply_position(state, timers, 10)
            now += 16.0
        assert not state.is_closing
        assert state.unprotected == 0

    def test_units_that_are_gone_are_taken_away_however_often_the_stop_was_refused(self):
        state, timers = protected(trail=D("0.50"), target=None)
        now = 5.0
        for index in range(MAX_REFUSALS):
            apply_price(state, timers, D("39.60") + index, now)
            action = due(state, timers, now)
            apply_refused(state, timers, action.step, "band", now)
            now += 3.0
            if now >= timers.retry_at:
                due(state, timers, now)
                apply_position(state, timers, 10)
        assert timers.retry_at > now
        apply_position(state, timers, 4)
        assert due(state, timers, now).quantity == 4

    def test_a_cancel_that_leads_to_nothing_is_asked_for_again(self):
        state, timers = protected()
        timers.must_read_position = True
        due(state, timers, 1.0)
        apply_position(state, timers, 0)
        assert due(state, timers, 1.0) == CancelExit(1)
        apply_cancel_accepted(state, timers, 1, 1.0)
        assert due(state, timers, 5.0) is None
        assert next_time(state, timers, 5.0) == 11.0
        assert due(state, timers, 11.0) == CancelExit(1)

    def test_a_market_price_that_cannot_be_changed_is_replaced(self):
        state, timers = protected()
        close_at_market(state, timers, 1.0)
        apply_accepted(state, timers, due(state, timers, 1.0).step)
        again = due(state, timers, 3.0)
        assert isinstance(again, ChangeExit)
        apply_refused(state, timers, 1, "type", 3.0)
        assert due(state, timers, 3.0) == CancelExit(1)
        apply_exit(state, timers, 1, 4.0, filled=2, is_final=True)
        assert due(state, timers, 4.0) == PlaceExit(2, 8, exit_terms(state))
