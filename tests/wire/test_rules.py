from __future__ import annotations

import json
from decimal import Decimal
from itertools import product as combinations

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from neo_async.errors import InvalidOrder
from neo_async.model.enums import OffsetKind, OrderType, Product, Segment, Side, Validity
from neo_async.model.orders import Bracket, OrderRequest, OrderTerms
from neo_async.wire.forms import encode_form
from neo_async.wire.numbers import exact_price_of, price_text
from neo_async.wire.orders import ModifyForm, PlaceForm, encode_order
from neo_async.wire.rules import (
    MAX_QUANTITY,
    cancel_form,
    check_change,
    check_number,
    check_order,
    check_symbol,
    margin_form,
    modify_form,
    place_form,
    placed_terms,
)
from neo_async.wire.tags import TagMaker

TAG = "k3x9a20001"


def request(**fields: object) -> OrderRequest:
    """A limit order that is right, but for what is given."""
    usual = {
        "segment": Segment.NSE_CM,
        "symbol": "ITBEES-EQ",
        "side": Side.BUY,
        "quantity": 10,
        "product": Product.CNC,
        "price": "39.35",
    }
    return OrderRequest(**(usual | fields))


def form_of(order: OrderRequest) -> PlaceForm:
    """The form of a checked placement."""
    return place_form(check_order(order), TAG, order.bracket)


def wire(form: object) -> dict[str, str]:
    return json.loads(msgspec.json.encode(form))


# --- what travels -----------------------------------------------------------------------------

LIMIT = {
    "am": "NO",
    "dq": "0",
    "es": "nse_cm",
    "mp": "0",
    "pc": "CNC",
    "pf": "N",
    "pr": "39.35",
    "pt": "L",
    "qt": "10",
    "rt": "DAY",
    "tp": "0",
    "ts": "ITBEES-EQ",
    "tt": "B",
    "ig": TAG,
    "os": "NEOTRADEAPI",
}
BRACKET = Bracket(target="2.50", stop=1.5)


@pytest.mark.parametrize(
    ("fields", "differs"),
    [
        ({}, {}),
        ({"side": Side.SELL, "product": Product.MIS}, {"tt": "S", "pc": "MIS"}),
        ({"product": Product.MTF, "segment": Segment.BSE_CM}, {"pc": "MTF", "es": "bse_cm"}),
        ({"price": None, "order_type": OrderType.MARKET}, {"pr": "0", "pt": "MKT"}),
        ({"price": 0, "order_type": OrderType.MARKET}, {"pr": "0", "pt": "MKT"}),
        ({"order_type": OrderType.SL, "trigger": Decimal("39.30")}, {"pt": "SL", "tp": "39.30"}),
        (
            {"order_type": OrderType.SL_M, "price": None, "trigger": 39.4},
            {"pt": "SL-M", "pr": "0", "tp": "39.4"},
        ),
        ({"validity": Validity.IOC}, {"rt": "IOC"}),
        ({"disclosed_quantity": 4, "amo": True}, {"dq": "4", "am": "YES"}),
        (
            {
                "segment": Segment.NSE_FO,
                "product": Product.NRML,
                "symbol": "NIFTY26JUN22250CE",
                "quantity": 75,
                "price": 112,
            },
            {"es": "nse_fo", "pc": "NRML", "ts": "NIFTY26JUN22250CE", "qt": "75", "pr": "112"},
        ),
        ({"product": Product.CO, "trigger": "38"}, {"pc": "CO", "tp": "38"}),
        (
            {
                "product": Product.CO,
                "order_type": OrderType.MARKET,
                "price": None,
                "trigger": "38",
            },
            {"pc": "CO", "pt": "MKT", "pr": "0", "tp": "38"},
        ),
        (
            {"product": Product.BO, "bracket": BRACKET},
            {
                "pc": "BO",
                "sot": "Absolute",
                "sov": "2.50",
                "slt": "Absolute",
                "slv": "1.5",
                "tlt": "N",
                "tsv": "0",
            },
        ),
        (
            {
                "product": Product.BO,
                "bracket": Bracket(target=20, stop=10, trail=5, kind=OffsetKind.TICKS),
            },
            {
                "pc": "BO",
                "sot": "Ticks",
                "sov": "20",
                "slt": "Ticks",
                "slv": "10",
                "tlt": "Y",
                "tsv": "5",
            },
        ),
    ],
)
def test_a_placement_travels_as_documented(fields, differs):
    assert wire(form_of(request(**fields))) == LIMIT | differs


@pytest.mark.parametrize(
    "fields",
    [
        {"price": 39.5, "amo": True},
        {"order_type": OrderType.MARKET, "price": None},
        {"order_type": OrderType.SL, "price": "39.40", "trigger": Decimal("39.3")},
        {"product": Product.CO, "price": 40, "trigger": "39"},
    ],
)
def test_the_form_of_a_placement_shows_the_terms_that_were_checked(fields):
    terms = check_order(request(**fields))
    assert placed_terms(place_form(terms, TAG)) == terms


def test_codes_given_as_text_count_as_the_members():
    text = request(
        segment="nse_cm", side="B", product="CNC", order_type="L", validity="DAY", price="39.35"
    )
    assert wire(form_of(text)) == LIMIT


def test_a_modification_travels_as_documented():
    assert wire(change_form()) == {
        "no": "250720000007242",
        "pr": "39.40",
        "pt": "L",
        "qt": "20",
        "tp": "0",
        "dq": "0",
        "mp": "0",
        "vd": "DAY",
        "am": "NO",
        "os": "NEOTRADEAPI",
    }
    assert wire(change_form(amo=True))["am"] == "YES"


def test_a_cancellation_names_the_symbol_of_an_after_market_order_only():
    assert wire(cancel_form(number="7", symbol="ITBEES-EQ", amo=False)) == {"on": "7", "am": "NO"}
    assert wire(cancel_form(number="7", symbol="ITBEES-EQ", amo=True)) == {
        "on": "7",
        "am": "YES",
        "ts": "ITBEES-EQ",
    }


def test_a_margin_question_travels_as_documented():
    form = margin_form(
        segment=Segment.NSE_CM,
        token="11536",
        side=Side.BUY,
        quantity=1,
        product=Product.CNC,
        price="3500",
        order_type=OrderType.LIMIT,
        trigger=None,
    )
    assert wire(form) == {
        "brkName": "KOTAK",
        "brnchId": "ONLINE",
        "exSeg": "nse_cm",
        "prc": "3500",
        "prcTp": "L",
        "prod": "CNC",
        "qty": "1",
        "tok": "11536",
        "trnsTp": "B",
        "trgPrc": "0",
    }


# --- which combinations exist -----------------------------------------------------------------


def refused_field(
    order_type: OrderType, validity: Validity, product: Product, segment: Segment
) -> str | None:
    """The field that the documents forbid in this combination; None when it is fine."""
    if product in (Product.CNC, Product.MTF) and segment not in ("nse_cm", "bse_cm"):
        return "product"
    if validity == "IOC" and (segment == "mcx_fo" or product in ("CO", "BO")):
        return "validity"
    if product == "BO" and order_type in ("MKT", "SL-M"):
        return "order_type"
    return None


@pytest.mark.parametrize("segment", Segment)
@pytest.mark.parametrize("product", Product)
def test_every_combination_is_taken_or_refused_by_the_right_field(product, segment):
    for order_type, validity in combinations(OrderType, Validity):
        order = request(
            segment=segment,
            product=product,
            order_type=order_type,
            validity=validity,
            price="39.35" if order_type in ("L", "SL") else None,
            trigger="39.30" if order_type in ("SL", "SL-M") or product == "CO" else None,
            bracket=BRACKET if product == "BO" else None,
        )
        expected = refused_field(order_type, validity, product, segment)
        if expected is None:
            form = form_of(order)
            assert (form.pt, form.rt, form.pc, form.es) == (order_type, validity, product, segment)
        else:
            with pytest.raises(InvalidOrder) as caught:
                form_of(order)
            assert caught.value.field == expected


# --- the rules, one by one --------------------------------------------------------------------

CO = {"product": Product.CO}
BO = {"product": Product.BO, "bracket": BRACKET}
SL = {"order_type": OrderType.SL}
RULES = [
    (
        {"segment": "NSE"},
        "segment='NSE': must be one of nse_cm, bse_cm, nse_fo, bse_fo, cde_fo, mcx_fo; NSE alone "
        "could be nse_cm or nse_fo",
    ),
    ({"segment": None}, "segment=None: must be one of nse_cm, "),
    ({"side": "bid"}, "side='bid': must be one of B (buy), S (sell)"),
    ({"product": "INTRADAY"}, "product='INTRADAY': must be one of CNC, MIS, NRML, MTF, CO, BO"),
    (
        {"order_type": "stop"},
        "order_type='stop': must be one of L (limit), MKT (market), SL, SL-M",
    ),
    ({"validity": "GTC"}, "validity='GTC': must be one of DAY, IOC"),
    (
        {"price": "1400.003"},
        "price='1400.003': has more than 2 decimals, which no price of this segment has: round it "
        "to the instrument's tick, such as '1400.00'",
    ),
    (
        {"symbol": ""},
        "symbol='': must be a trading symbol of the scrip master, such as 'ITBEES-EQ'",
    ),
    ({"symbol": "itbees"}, "symbol='itbees': must be a trading symbol"),
    ({"symbol": "A\n"}, "symbol='A\\n': must be a trading symbol"),
    ({"symbol": "ITBEES-EQ "}, "symbol='ITBEES-EQ ': must be a trading symbol"),
    ({"symbol": " ITBEES-EQ"}, "symbol=' ITBEES-EQ': must be a trading symbol"),
    ({"symbol": 11536}, "symbol=11536: must be a trading symbol"),
    ({"quantity": 0}, f"quantity=0: must be a whole number of units, 1 to {MAX_QUANTITY}"),
    ({"quantity": -1}, "quantity=-1: must be a whole number of units"),
    ({"quantity": 1.0}, "quantity=1.0: must be a whole number of units"),
    ({"quantity": True}, "quantity=True: must be a whole number of units"),
    ({"quantity": "10"}, "quantity='10': must be a whole number of units"),
    ({"quantity": MAX_QUANTITY + 1}, f"quantity={MAX_QUANTITY + 1}: must be a whole number"),
    ({"disclosed_quantity": 11}, "disclosed_quantity=11: must be 0 (show all) to the quantity, 10"),
    ({"disclosed_quantity": -1}, "disclosed_quantity=-1: must be 0 (show all) to"),
    ({"disclosed_quantity": False}, "disclosed_quantity=False: must be 0 (show all) to"),
    ({"amo": "NO"}, "amo='NO': must be True or False"),
    ({"amo": 1}, "amo=1: must be True or False"),
    (
        {"segment": Segment.NSE_FO},
        "product='CNC': exists in cash segments only, not nse_fo",
    ),
    (
        {"segment": Segment.MCX_FO, "product": Product.NRML, "validity": Validity.IOC},
        "validity='IOC': mcx_fo takes DAY only",
    ),
    (
        CO | {"validity": Validity.IOC, "trigger": 38},
        "validity='IOC': product CO takes DAY only",
    ),
    ({"price": None}, "price=None: order type L needs a limit price; MKT is the type without one"),
    ({"price": 0}, "price=0: order type L needs a price above 0"),
    ({"price": "0.00"}, "price='0.00': order type L needs a price above 0"),
    ({"price": -1}, "price=-1: must not be negative"),
    ({"price": float("nan")}, "price=nan: must be finite"),
    ({"price": "39,35"}, "price='39,35': must be decimal text such as \"39.35\""),
    ({"price": True}, "price=True: must be a number, or a number as text"),
    ({"order_type": OrderType.MARKET}, "price='39.35': order type MKT has no limit price"),
    (
        {"order_type": OrderType.SL_M, "trigger": 39},
        "price='39.35': order type SL-M has no limit price",
    ),
    (SL, "trigger=None: order type SL needs a trigger price above 0"),
    (SL | {"trigger": 0}, "trigger=0: order type SL needs a trigger price above 0"),
    (
        {"order_type": OrderType.SL_M, "price": None},
        "trigger=None: order type SL-M needs a trigger price above 0",
    ),
    ({"trigger": 39}, "trigger=39: order type L has no trigger price"),
    (
        SL | {"trigger": "39.40"},
        "trigger='39.40': a buy SL triggers at or below its price 39.35",
    ),
    (
        SL | {"trigger": "39.30", "side": Side.SELL},
        "trigger='39.30': a sell SL triggers at or above its price 39.35",
    ),
    (CO, "trigger=None: product CO needs a trigger price above 0"),
    (CO | {"trigger": "39.35"}, "trigger='39.35': the stop of a CO must lie below 39.35"),
    (
        CO | {"trigger": "39.35", "side": Side.SELL},
        "trigger='39.35': the stop of a CO must lie above 39.35",
    ),
    (
        {"product": Product.BO},
        "bracket=None: product BO needs a Bracket(target=…, stop=…)",
    ),
    ({"bracket": BRACKET}, f"bracket={BRACKET!r}: only product BO has one, not CNC"),
    (
        BO | {"order_type": OrderType.MARKET, "price": None},
        "order_type='MKT': the entry of a BO needs a limit price",
    ),
    (
        BO | {"bracket": Bracket(target=0, stop=1)},
        "bracket.target=0: is a distance from the entry and must be above 0",
    ),
    (
        BO | {"bracket": Bracket(target=1, stop="0")},
        "bracket.stop='0': is a distance from the entry and must be above 0",
    ),
    (
        BO | {"bracket": Bracket(target=1, stop=1, trail=-1)},
        "bracket.trail=-1: must not be negative",
    ),
    (
        BO | {"bracket": Bracket(target=1, stop=1, kind="Rupees")},
        "bracket.kind='Rupees': must be one of Absolute, Ticks",
    ),
]


@pytest.mark.parametrize(("fields", "message"), RULES, ids=[rule[1][:50] for rule in RULES])
def test_a_broken_rule_names_field_value_and_rule(fields, message):
    with pytest.raises(InvalidOrder) as caught:
        form_of(request(**fields))
    error = caught.value
    assert str(error).startswith(message)
    assert str(error) == f"{error.field}={error.value!r}: {error.rule}"


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("trigger", ["39.35", 39.35, "39.350"])
def test_a_stop_may_trigger_at_its_own_price(side, trigger):
    order = request(order_type=OrderType.SL, side=side, trigger=trigger)
    assert Decimal(form_of(order).tp) == Decimal("39.35")


# --- modifications, numbers, margin -----------------------------------------------------------


def change_form(**fields: object) -> ModifyForm:
    """The form of a checked modification of an order of which 5 units are filled."""
    terms = OrderTerms(
        segment=Segment.NSE_CM,
        symbol="ITBEES-EQ",
        side=Side.BUY,
        product=Product.CNC,
        order_type=OrderType.LIMIT,
        quantity=20,
        price=Decimal("39.40"),
    )
    changed = msgspec.structs.replace(terms, **fields)
    return modify_form("250720000007242", check_change(changed, filled_quantity=5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantity": 5}, "quantity=5: is the new total and must be above the 5 filled already"),
        ({"quantity": "20"}, "quantity='20': must be a whole number of units"),
        (
            {"order_type": "stop"},
            "order_type='stop': must be one of L (limit), MKT (market), SL, SL-M",
        ),
        ({"price": 39.405}, "price=39.405: has more than 2 decimals"),
        ({"validity": "GTC"}, "validity='GTC': must be one of DAY, IOC"),
        ({"disclosed_quantity": 21}, "disclosed_quantity=21: must be 0 (show all) to the quantity"),
        (
            {"price": None},
            "price=None: order type L needs a limit price; MKT is the type without one",
        ),
        ({"trigger": 39}, "trigger=39: order type L has no trigger price"),
        (
            {"segment": Segment.MCX_FO, "product": Product.NRML, "validity": Validity.IOC},
            "validity='IOC': mcx_fo takes DAY only",
        ),
        (
            {"order_type": OrderType.SL, "trigger": 40},
            "trigger='40': a buy SL triggers at or below its price 39.40",
        ),
    ],
)
def test_a_change_is_checked_as_the_order_would_be(fields, message):
    with pytest.raises(InvalidOrder) as caught:
        change_form(**fields)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("number", ["", "12a", "²", "-1", " 1", 250720000007242, None])
def test_an_order_number_is_digits(number):
    with pytest.raises(InvalidOrder, match="must be an Order or the digits of an order number"):
        check_number(number)


@pytest.mark.parametrize("symbol", ["ITBEES-EQ", "M&M-EQ", "NIFTY26JUN22250CE", "3MINDIA-EQ"])
def test_real_symbols_pass(symbol):
    check_symbol(symbol)


@pytest.mark.parametrize("token", ["", "x", "²", 11536])
def test_a_token_is_digits(token):
    with pytest.raises(InvalidOrder, match="must be the digits of the instrument's"):
        margin_form(
            segment=Segment.NSE_CM,
            token=token,
            side=Side.BUY,
            quantity=1,
            product=Product.CNC,
            price=1,
            order_type=OrderType.LIMIT,
            trigger=None,
        )


# --- the body of a placement ------------------------------------------------------------------

odd_price = (
    st.none()
    | st.floats()
    | st.decimals(places=4)
    | st.integers()
    | st.sampled_from(["39.35", "39.350", "1e3", "0.0005", "007.50", "99999999999999999"])
)
paise = st.integers(1, 10**8)
spellings = st.sampled_from([str, float, Decimal])


@st.composite
def requests(draw: st.DrawFn) -> OrderRequest:
    """Orders of every kind, most of which the rules let through."""
    order_type, product = draw(st.sampled_from(OrderType)), draw(st.sampled_from(Product))
    side, spelt, quantity = (
        draw(st.sampled_from(Side)),
        draw(spellings),
        draw(st.integers(1, 10**9)),
    )
    low, high = sorted([draw(paise), draw(paise)])
    price, trigger = (high, low) if side is Side.BUY else (low, high)
    is_triggered = order_type.has_trigger or product is Product.CO
    is_complex = product in (Product.CO, Product.BO)
    return request(
        segment=Segment.NSE_CM if product is Product.CNC else draw(st.sampled_from(Segment)),
        symbol=draw(st.from_regex(r"[A-Z][A-Z0-9&_.\- ]{0,20}[A-Z]", fullmatch=True)),
        side=side,
        quantity=quantity,
        product=product,
        price=spelt(str(price / 100)) if order_type.has_limit else None,
        order_type=order_type,
        trigger=spelt(str(trigger / 100)) if is_triggered else None,
        disclosed_quantity=draw(st.sampled_from([0, quantity])),
        validity=Validity.DAY if is_complex else draw(st.sampled_from(Validity)),
        amo=draw(st.booleans()),
        tag=draw(st.from_regex(r"[A-Za-z0-9_]{0,9}", fullmatch=True)),
        bracket=Bracket(target=spelt(low), stop="0.05") if product is Product.BO else None,
    )


@given(requests())
def test_a_placement_is_written_as_the_general_encoder_writes_it(order):
    try:
        form = place_form(check_order(order), TagMaker().make(order.tag), order.bracket)
    except InvalidOrder:
        reject()
    assert encode_order(form) == encode_form(form)


@given(odd_price)
def test_a_price_that_is_remembered_is_read_as_before(price):
    def read(reader) -> object:
        try:
            return reader("price", price)
        except InvalidOrder as error:
            return str(error)

    text = read(price_text)
    exact = read(exact_price_of)
    assert exact == read(exact_price_of)
    if isinstance(exact, Decimal):
        assert format(exact, "f") == text
    else:
        assert text == ("0" if exact is None else exact)


@pytest.mark.parametrize(
    "fields", [{"tk": "14428"}, {"lat": "39.3"}, {"ig": None}, {"sot": "Ticks"}]
)
def test_a_placement_that_no_rule_makes_is_written_with_all_that_it_has(fields):
    form = msgspec.structs.replace(form_of(request()), **fields)
    assert encode_order(form) == encode_form(form)
