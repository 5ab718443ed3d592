"""Codes that the broker sends and no enum has."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest

from neo_async import InvalidOrder, OrderType, Product, Segment, Side, UsageError, Validity
from neo_async.kite.rules import order_form
from neo_async.market_data.instruments import _segment
from neo_async.model.enums import BrokerCode
from neo_async.model.orders import OrderRequest
from neo_async.wire.rules import check_order

VOCABULARIES = [Segment, Side, Product, OrderType, Validity]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_spelling_of_a_member_reads_as_that_member(vocabulary: type[BrokerCode]) -> None:
    for member in vocabulary:
        for text in (member.value, member.name, f" {member.value.lower()} ", member.value.upper()):
            assert vocabulary.read(text) is member
        assert member.is_known


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_another_code_keeps_its_text_and_is_no_member(vocabulary: type[BrokerCode]) -> None:
    code = vocabulary.read("Odd one")
    assert isinstance(code, vocabulary)
    assert not code.is_known
    assert code == str(code) == code.value == code.name == "Odd one"
    assert code not in list(vocabulary)
    assert {code: 1}["Odd one"] == 1
    assert copy.deepcopy(code) == pickle.loads(pickle.dumps(code)) == code
    assert type(pickle.loads(pickle.dumps(code))) is vocabulary
    assert msgspec.json.encode(code) == b'"Odd one"'


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_enum_itself_stays_strict(vocabulary: type[BrokerCode]) -> None:
    vocabulary.read("Odd one")
    with pytest.raises(ValueError, match="Odd one"):
        vocabulary("Odd one")


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("segment", Segment.read("ncd_co")),
        ("side", Side.read("X")),
        ("product", Product.read("")),
        ("order_type", OrderType.read("ICEBERG")),
        ("validity", Validity.read("GTC")),
    ],
)
def test_nothing_is_sent_with_a_code_that_is_not_known(field: str, code: BrokerCode) -> None:
    order = OrderRequest(Segment.NSE_CM, "TCS-EQ", Side.BUY, 1, Product.CNC, "100")
    check_order(order)
    with pytest.raises(InvalidOrder, match="must be one of") as caught:
        check_order(msgspec.structs.replace(order, **{field: code}))
    assert caught.value.field == field


def test_an_unknown_side_has_no_opposite_and_a_scrip_master_no_unknown_segment() -> None:
    assert (Side.BUY.opposite, Side.SELL.opposite) == (Side.SELL, Side.BUY)
    with pytest.raises(ValueError, match="neither buy nor sell"):
        _ = Side.read("X").opposite
    with pytest.raises(UsageError, match="must be one of"):
        _segment(Segment.read("ncd_co"))
    with pytest.raises(InvalidOrder, match=r"Side\.BUY or Side\.SELL"):
        order_form("INF209K01157", Side.read("X"), None, None, "")
