"""The effect that an order request is to have, as far as reports can show it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import OrderStatus, Validity
from neo_async.execution.expected_effect import (
    CANCELLING,
    CLOCK_SKEW_NS,
    cancellation,
    effect_of_intent,
    has_terms,
    placement,
)
from neo_async.execution.journal_schema import Intent
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.terms_change import CHANGEABLE
from neo_async.model.enums import OrderType
from neo_async.model.orders import OrderRow, OrderTerms
from neo_async.wire.rules import cancel_form, modify_form, place_form
from tests.execution.feed_broker import TERMS
from tests.execution.report_broker import (
    Broker,
    modification,
    row,
)


async def test_a_price_that_cannot_be_read_proves_no_change_to_a_market_order() -> None:
    broker = Broker()
    order = broker.cache.register(row())
    expected = modification(order, order_type=OrderType.MARKET, price=None)
    assert expected.terms is not None
    assert expected.changed_terms == {"price"}
    assert has_terms(row(price=39.0), order.terms, expected.terms) is False
    assert has_terms(row(price=39.05), order.terms, expected.terms) is True
    request = broker.in_flight.open(expected)
    await asyncio.sleep(1)
    broker.rows = [row(price=0.0, missing=frozenset({"price"}))]
    await broker.book()
    assert not request.is_done
    broker.rows = [row(price=40.0)]
    await broker.book()
    assert await request is order
    await broker.in_flight.close()


async def test_a_change_from_a_price_that_is_not_known_is_not_proven_by_any_price() -> None:
    broker = Broker()
    order = broker.cache.register(row(price=0.0, missing=frozenset({"price"})))
    expected = modification(order, order_type=OrderType.MARKET, price=None)
    assert expected.changed_terms == frozenset()
    await broker.in_flight.close()


@pytest.mark.parametrize("form", ["", "{", "[]", '{"ig": 1}', "\ud800"])
def test_a_placement_in_the_journal_whose_form_cannot_be_read_is_known_by_its_tag(
    form: str,
) -> None:
    intent = Intent(1, 0, "place", "lost", "", form, None, "")
    expected = effect_of_intent(intent)
    assert (expected.action, expected.client_tag) == ("place", "lost")


# --- effects by themselves ------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "quantity": 20,
    "price": Decimal("39.10"),
    "trigger": Decimal("38.50"),
    "validity": Validity.IOC,
    "disclosed_quantity": 5,
}
changes = st.sets(st.sampled_from(sorted(CHANGES))).map(
    lambda names: {name: CHANGES[name] for name in names}
)


def order_of(status: str = "open") -> Order:
    return OrderCache().register(shown(status_text=status))


def shown(**fields: Any) -> OrderRow:
    """A row of the order, outside of any loop."""
    return row(updated_ns=7, **fields)


@given(changes)
def test_a_modification_is_shown_by_exactly_the_terms_that_differ(changed: dict[str, Any]) -> None:
    expected = modification(order_of(), **changed)
    assert expected.changed_terms == changed.keys()
    assert (expected.action, expected.number) == ("modify", order_of().number)
    assert expected.since_ns == 7
    assert not expected.is_from_journal


@given(changes)
def test_a_state_has_the_terms_of_a_modification_when_it_shows_all_that_differ(
    changed: dict[str, Any],
) -> None:
    order = order_of()
    after = msgspec.structs.replace(order.terms, **changed)
    fields = {
        name: float(value) if isinstance(value, Decimal) else value
        for name, value in changed.items()
    }
    assert has_terms(shown(**fields), order.terms, after) is True
    for name in fields:
        others = {other: value for other, value in fields.items() if other != name}
        assert has_terms(shown(**others), order.terms, after) is False
        unread = shown(**others, missing=frozenset({name}))
        assert has_terms(unread, order.terms, after) is None


def test_without_the_terms_before_a_state_has_to_show_all_that_can_be_changed() -> None:
    order = order_of()
    assert has_terms(shown(), None, order.terms) is True
    for name, value in {"quantity": 11, "price": 39.05, "trigger": 1.0, "validity": "IOC"}.items():
        assert has_terms(shown(**{name: value}), None, order.terms) is False


def test_a_placement_is_known_by_its_tag_and_by_what_no_modification_changes() -> None:
    expected = placement(place_form(TERMS, "own_1"))
    assert (expected.action, expected.client_tag, expected.number) == ("place", "own_1", "")
    assert expected.kind == ("nse_cm", "ITBEES-EQ", "B", "CNC")
    assert expected.changed_terms == frozenset()
    assert expected.identity == "tag 'own_1'"


@pytest.mark.parametrize("status", [status for status in OrderStatus if status])
def test_a_cancellation_keeps_whether_the_order_was_final_or_being_cancelled(
    status: OrderStatus,
) -> None:
    order = order_of(status.value)
    expected = cancellation(order)
    assert expected.was_final is order.is_final
    assert expected.was_cancelling is (status in CANCELLING)
    assert expected.changed_terms == frozenset()
    assert expected.identity == f"number {order.number!r}"


def intent_of(action: str, form: object, **fields: Any) -> Intent:
    known: dict[str, Any] = {"client_tag": "", "order_number": "", **fields}
    text = msgspec.json.encode(form).decode()
    return Intent(id=1, at_ns=10**18, action=action, form=text, outcome=None, reason="", **known)


def test_the_effect_of_a_placement_in_the_journal_is_that_of_its_form() -> None:
    form = place_form(TERMS, "own_1")
    assert effect_of_intent(intent_of("place", form, client_tag="own_1")) == placement(form)


def test_a_cancel_in_the_journal_counts_from_the_clock_skew_before_it() -> None:
    form = cancel_form(number="11", symbol="ITBEES-EQ", amo=False)
    expected = effect_of_intent(intent_of("cancel", form, order_number="11"))
    assert (expected.action, expected.number, expected.terms) == ("cancel", "11", None)
    assert expected.since_ns == 10**18 - CLOCK_SKEW_NS
    assert expected.is_from_journal


@given(changes)
def test_the_effect_of_a_modification_in_the_journal_is_all_that_its_form_sets(
    changed: dict[str, Any],
) -> None:
    sent = msgspec.structs.replace(TERMS, **changed)
    form = modify_form("11", sent)
    expected = effect_of_intent(intent_of("modify", form, order_number="11"))
    assert isinstance(expected.terms, OrderTerms)
    assert {name: getattr(expected.terms, name) for name in CHANGEABLE} == {
        name: getattr(sent, name) for name in CHANGEABLE
    }
    assert expected.changed_terms == set(CHANGEABLE)
    assert expected.terms_before is None
