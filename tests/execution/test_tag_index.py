"""Orders by client tag and by the caller's part of it, against a plain search."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from neo_async import Order, OrderRequest, Product, Segment, Side
from neo_async.execution.tag_index import TagIndex
from neo_async.wire.rules import check_order
from neo_async.wire.tags import own_tag, without_suffix

TERMS = check_order(
    OrderRequest(Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, product=Product.MIS, price="40.60")
)
TAGS = ["", "abc1230000", "bot_abc1230001", "bot_abc1230001-17", "bot_abc1230002", "_p1ab20_x0"]
OWN = ["", "bot", "_p1ab20", "other"]


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from(TAGS))))
def test_it_finds_what_a_search_of_all_orders_finds(steps: list[tuple[str, str]]) -> None:
    """Each step gives an order another client tag, or drops it where it has that already."""
    index, orders = TagIndex(), {}
    for number, tag in steps:
        before = orders.pop(number, None)
        if before is not None:
            index.remove(before, before.client_tag)
        if before is None or before.client_tag != tag:
            orders[number] = Order(number, TERMS, client_tag=tag)
            index.add(orders[number])
        for own in OWN:
            wanted = [one for one in orders.values() if own and own_tag(one.client_tag) == own]
            assert sorted(map(id, index.with_own_tag(own))) == sorted(map(id, wanted))
        assert set(index.own_tags) == {own_tag(one.client_tag) for one in orders.values()} - {""}


def test_of_two_orders_with_one_tag_the_first_is_found() -> None:
    index = TagIndex()
    first, second = (Order(number, TERMS, client_tag="bot_abc1230001") for number in "12")
    index.add(first)
    index.add(second)
    for tag in ("bot_abc1230001", "bot_abc1230001-17"):
        assert without_suffix(tag) == "bot_abc1230001"
        assert index.find(tag) is first
    index.remove(second, second.client_tag)
    assert index.find("bot_abc1230001") is first
    index.remove(first, first.client_tag)
    assert index.find("bot_abc1230001") is None
