from __future__ import annotations

import inspect

import pytest

from neo_async import errors
from neo_async.errors import (
    BODY_EXCERPT,
    AnswerLost,
    BankRejected,
    BreakerOpen,
    BrokerError,
    ClockSkew,
    DuplicateTag,
    Halted,
    InsufficientFunds,
    InvalidField,
    InvalidOrder,
    JournalFailed,
    LoginFailed,
    LossLimit,
    NeoError,
    NotAccepted,
    NotLoggedIn,
    NotSent,
    OpenOrdersLimit,
    OrderAlreadyFinal,
    OrderRateLimit,
    OutcomeUnknown,
    PositionLimit,
    PositionOpen,
    PriceLimit,
    ProductNotAllowed,
    ProtocolError,
    QuantityLimit,
    RateLimited,
    RefundUnknown,
    Rejected,
    RiskRefused,
    SegmentNotAllowed,
    ServerError,
    SessionEnded,
    StaticIpRefused,
    StoreFailed,
    TransportError,
    UnreadableCredit,
    UsageError,
    ValueLimit,
    WrongMpin,
    WrongTotp,
)

SENTENCES = [
    (NeoError("something"), "something"),
    (UsageError("ucc is empty"), "ucc is empty"),
    (InvalidField("ifsc", "X", "must be 11 letters"), "ifsc='X': must be 11 letters"),
    (InvalidOrder("quantity", -1, "must be above 0"), "quantity=-1: must be above 0"),
    (InvalidOrder("symbol", "a b", "no"), "symbol='a b': no"),
    (NotLoggedIn("not logged in"), "not logged in"),
    (
        Halted("signal SIGUSR1", since=1_795_408_200.0),
        "halted since 10:00:00 IST (signal SIGUSR1): no order is placed or changed until "
        "neo.resume_orders() is called",
    ),
    (RiskRefused(1, 2, "2 are too many"), "limit=1: 2 are too many"),
    (
        SegmentNotAllowed(frozenset({"nse_fo", "nse_cm"}), "mcx_fo", "mcx_fo is not among them"),
        "segments=nse_cm, nse_fo: mcx_fo is not among them",
    ),
    (
        ProductNotAllowed(frozenset({"CNC"}), "MIS", "MIS is not among them"),
        "products=CNC: MIS is not among them",
    ),
    (
        QuantityLimit(100, 500, "an order of 500 units"),
        "max_order_quantity=100: an order of 500 units",
    ),
    (ValueLimit("5000", 7870, "worth 7870 rupees"), "max_order_notional=5000: worth 7870 rupees"),
    (PriceLimit(2.5, None, "not known"), "max_price_deviation_pct=2.5: not known"),
    (OrderRateLimit(60, 61, "61 orders"), "max_orders_per_minute=60: 61 orders"),
    (OpenOrdersLimit(5, 6, "6 orders"), "max_open_orders=5: 6 orders"),
    (PositionLimit(100, 110, "110 units"), "max_net_position=100: 110 units"),
    (LossLimit(5000, 5001, "a loss"), "max_daily_loss=5000: a loss"),
    (BrokerError("no"), "no"),
    (BrokerError("no", code=7), "no (code 7)"),
    (BrokerError("no", status=400), "no (HTTP 400)"),
    (BrokerError("no", code=0, status=400, body="hidden"), "no (code 0, HTTP 400)"),
    (LoginFailed("User is blocked", code=424), "User is blocked (code 424)"),
    (WrongTotp("Invalid TOTP", status=401), "Invalid TOTP (HTTP 401)"),
    (WrongMpin("Invalid MPIN", code=401), "Invalid MPIN (code 401)"),
    (
        ClockSkew(95.4, code=401),
        "TOTP code refused, and this machine's clock is 95 s ahead of the broker's "
        "(30 s are tolerated): synchronise the clock (code 401)",
    ),
    (
        ClockSkew(-61.0, status=401),
        "TOTP code refused, and this machine's clock is 61 s behind the broker's "
        "(30 s are tolerated): synchronise the clock (HTTP 401)",
    ),
    (SessionEnded("Invalid session", code=1003), "Invalid session (code 1003)"),
    (StaticIpRefused("unauthorized", code=100008), "unauthorized (code 100008)"),
    (
        RateLimited("Too many requests", retry_after=1.0),
        "Too many requests (code 429, HTTP 429)",
    ),
    (ServerError("down", status=502), "down (HTTP 502)"),
    (Rejected("market closed", code=1008), "market closed (code 1008)"),
    (InsufficientFunds("Insufficient balance.", code=1004), "Insufficient balance. (code 1004)"),
    (OrderAlreadyFinal("order is completed", code=1021), "order is completed (code 1021)"),
    (DuplicateTag("error from core", code=32), "error from core (code 32)"),
    (
        BankRejected("is taken", refusal="duplicate", code="VA1002", status=200),
        "is taken (code VA1002, HTTP 200)",
    ),
    (
        BankRejected("too long", refusal="input", field="accounts[3].name", code="VA1001"),
        "accounts[3].name: too long (code VA1001)",
    ),
    (TransportError("broken"), "broken"),
    (NotSent("cannot connect"), "cannot connect"),
    (
        BreakerOpen("orders at h:443", open_for=3.21, last_failure="HTTP 503", probe_in=0.25),
        "orders at h:443: down for 3.2 s (last: HTTP 503); nothing was sent, the next try is let "
        "through in 0.25 s",
    ),
    (AnswerLost("no complete answer within 2 s"), "no complete answer within 2 s"),
    (
        OutcomeUnknown("place", client_tag="bot_k3x9a20001", reason="no answer"),
        "no usable answer to place (no answer); it may have taken effect: look for tag "
        "'bot_k3x9a20001' in the order book before sending anything again",
    ),
    (
        OutcomeUnknown("cancel", order_number="250720000007242", reason="no answer"),
        "no usable answer to cancel (no answer); it may have taken effect: look for number "
        "'250720000007242' in the order book before sending anything again",
    ),
    (
        RefundUnknown(idempotency_key="1f0c", reason="no answer"),
        "no usable answer to refund (no answer); it may have been initiated: ask for its status "
        "by idempotency key '1f0c', and use no other key for it",
    ),
    (
        NotAccepted("place", client_tag="bot_k3x9a20001", resolution_timeout=30.0),
        "place was sent, but had no effect: 30 s later the order book shows no trace of it at tag "
        "'bot_k3x9a20001'; unless the broker takes longer than that, sending it again is safe",
    ),
    (JournalFailed("the disk is full"), "the disk is full"),
    (StoreFailed("the disk is full"), "the disk is full"),
    (
        PositionOpen("nse_cm", "ITBEES-EQ", "MIS", -5, reason="no margin"),
        "ITBEES-EQ (nse_cm, MIS) is not flat, net -5: no margin",
    ),
    (ProtocolError("the answer is empty"), "the answer is empty"),
    (
        UnreadableCredit("it has no amount", reference="R1", entry='{"ref":"R1"}'),
        'credit R1: it has no amount: \'{"ref":"R1"}\'',
    ),
    (
        ProtocolError("the answer is not JSON", status=200, body="<html>"),
        "the answer is not JSON (HTTP 200): '<html>'",
    ),
]


@pytest.mark.parametrize(("error", "sentence"), SENTENCES)
def test_every_error_says_what_happened(error, sentence):
    assert str(error) == sentence


def test_the_table_lists_every_error():
    defined = {
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, NeoError)
    }
    assert {type(error) for error, _ in SENTENCES} == defined


def test_the_tree_is_drawn_as_it_is():
    """The drawing at the top of the module names every class below its base."""
    drawn, path = {}, []
    for line in (errors.__doc__ or "").splitlines():
        name = line[4:].lstrip("│├└─ ").partition(" ")[0]
        depth = (len(line[4:]) - len(line[4:].lstrip("│├└─ "))) // 4
        if not line.startswith("    ") or not name:
            continue
        path[depth:] = [name]
        drawn[name] = path[depth - 1] if depth else None
    defined = {
        name: member.__bases__[0].__name__
        for name, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, NeoError)
    }
    assert drawn == defined | {"NeoError": None}


def test_facts_are_attributes():
    skew = ClockSkew(-61.0)
    assert skew.skew == -61.0
    refusal = RateLimited("slow down", retry_after=2.5, body="x")
    assert (refusal.retry_after, refusal.code, refusal.status, refusal.body) == (2.5, 429, 429, "x")
    unknown = OutcomeUnknown("place", client_tag="t", reason="r")
    assert (unknown.action, unknown.client_tag, unknown.order_number, unknown.reason) == (
        "place",
        "t",
        "",
        "r",
    )
    bad = InvalidOrder("price", "x", "rule")
    assert (bad.field, bad.value, bad.rule) == ("price", "x", "rule")


def test_a_usage_error_is_a_value_error():
    assert issubclass(InvalidOrder, ValueError)


def test_an_unknown_outcome_is_no_failure_of_the_network_nor_a_refusal():
    assert not issubclass(OutcomeUnknown, TransportError | BrokerError)


def test_a_long_body_is_cut_in_the_message_only():
    error = ProtocolError("odd", body="x" * 1000)
    assert str(error).count("x") == BODY_EXCERPT
    assert error.body == "x" * 1000
