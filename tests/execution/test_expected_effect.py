"""The effect that an order request is to have, as far as reports can show it."""

from __future__ import annotations

import asyncio

import pytest

from neo_async.execution.expected_effect import (
    effect_of_intent,
    has_terms,
)
from neo_async.execution.journal_schema import Intent
from neo_async.model.enums import OrderType
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
