"""Arguments of an order as callers write them: positions, dicts, and names of instruments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    Instrument,
    InvalidOrder,
    OrderRequest,
    Product,
    Segment,
    Side,
    UsageError,
)
from neo_async.execution.order_arguments import (
    KEYS,
    leading_arguments,
    named_instrument,
    request_of,
)

GOOD: dict[str, Any] = {
    "segment": Segment.NSE_CM,
    "symbol": "ITBEES-EQ",
    "side": Side.BUY,
    "quantity": 10,
    "product": Product.CNC,
}


def test_an_order_request_is_returned_as_it_is() -> None:
    request = OrderRequest(**GOOD)
    assert request_of(request, None) is request


@given(st.permutations(sorted(GOOD)))
def test_a_dict_of_arguments_is_the_request_with_these_fields(keys: list[str]) -> None:
    given_order = {key: GOOD[key] for key in keys}
    assert request_of(given_order, None) == OrderRequest(**GOOD)
    assert list(given_order) == keys, "the caller's dict stays as it is"


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_a_missing_argument_is_named(missing: str) -> None:
    order = {key: value for key, value in GOOD.items() if key != missing}
    with pytest.raises(InvalidOrder, match="is missing") as caught:
        request_of(order, None)
    assert caught.value.field == missing


@pytest.mark.parametrize(
    ("key", "meant"), [("quantiy", "quantity"), ("Symbol", "symbol"), ("zzz", None), (7, None)]
)
def test_an_unknown_key_is_refused_with_the_keys_that_there_are(
    key: object, meant: str | None
) -> None:
    with pytest.raises(InvalidOrder) as caught:
        request_of({**GOOD, key: 1}, None)
    text = str(caught.value)
    assert all(known in text for known in KEYS)
    assert ("did you mean" in text) is (meant is not None)
    if meant is not None:
        assert f"did you mean {meant}?" in text


@pytest.mark.parametrize("order", [None, 7, "ITBEES-EQ", [GOOD], ("nse_cm", "ITBEES-EQ")])
def test_an_order_of_another_type_is_refused(order: object) -> None:
    with pytest.raises(InvalidOrder, match="must be an OrderRequest, or a dict"):
        request_of(order, None)


@pytest.mark.parametrize("field", ["segment", "symbol"])
def test_an_instrument_stands_in_the_place_of_segment_and_symbol(field: str) -> None:
    order = {key: value for key, value in GOOD.items() if key not in ("segment", "symbol")}
    with pytest.raises(InvalidOrder, match="must not stand beside an instrument") as caught:
        request_of({**order, "instrument": "NSE:ITBEES", field: GOOD[field]}, None)
    assert caught.value.field == field


def test_a_name_needs_scrip_masters() -> None:
    with pytest.raises(InvalidOrder, match="there are no scrip masters"):
        named_instrument(None, "NSE:ITBEES")


@pytest.mark.parametrize(
    ("name", "side", "quantity"),
    [
        (Segment.NSE_CM, Side.BUY, 10),
        ("NSE:ITBEES", None, 10),
        ("NSE:ITBEES", Side.BUY, None),
    ],
)
def test_leading_arguments_that_are_incomplete_are_refused_with_both_forms(
    name: Any, side: Any, quantity: Any
) -> None:
    with pytest.raises(UsageError, match=r"\(instrument, side, quantity\)"):
        leading_arguments(None, name, side, quantity)


def test_an_instrument_of_the_scrip_masters_gives_segment_and_symbol() -> None:
    share = Instrument(Segment.NSE_CM, "19084", "ITBEES-EQ", "ITBEES")
    assert named_instrument(None, share) is share
    leading = leading_arguments(None, share, Side.BUY, 10)
    assert leading == (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
    order = {key: value for key, value in GOOD.items() if key not in ("segment", "symbol")}
    assert request_of({**order, "instrument": share}, None) == OrderRequest(**GOOD)
