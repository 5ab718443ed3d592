"""Settings by name: at the opening, from text, and while the exchange is open."""

from __future__ import annotations

import msgspec
import pytest

from neo_async.errors import UsageError
from neo_async.exchange import (
    AuthAnswer,
    BankSettings,
    Behaviour,
    BrokerSettings,
    FeedSettings,
    Hours,
    Rules,
)
from neo_async.exchange.engine.lookup import find_listing
from neo_async.exchange.switches import read_switches, with_switches
from tests.exchange.callers import trading, visiting

GROUPS = {"rules": Rules, "broker": BrokerSettings, "feeds": FeedSettings, "bank": BankSettings}


def test_no_two_groups_share_a_name() -> None:
    names = [name for group in GROUPS.values() for name in group.__struct_fields__]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "group", "value"),
    [
        ("covered_orders=true", "rules", True),
        ("covered_orders=0", "rules", False),
        ("type_changes=false", "rules", False),
        ("hours=exchange", "rules", Hours.EXCHANGE),
        ("static_ips=10.0.0.1, 10.0.0.2", "broker", ("10.0.0.1", "10.0.0.2")),
        ('static_ips=["10.0.0.1"]', "broker", ("10.0.0.1",)),
        ("static_ips=10.0.0.1", "broker", ("10.0.0.1",)),
        ("static_ips=null", "broker", None),
        ("ended_session_code=100022", "broker", 100022),
        ("refusals_as_200=true", "broker", True),
        ("interval=0.2", "feeds", 0.2),
        ("auth_answer=1119", "feeds", AuthAnswer.CONNECTED),
        ("zero_averages=true", "feeds", True),
        ("requests_per_second=2", "bank", 2),
    ],
)
def test_every_kind_of_setting_is_read_from_text(text: str, group: str, value: object) -> None:
    behaviour = with_switches(Behaviour(), read_switches([text]))
    name = text.partition("=")[0]
    assert getattr(getattr(behaviour, group), name) == value
    assert behaviour == msgspec.structs.replace(
        Behaviour(),
        **{group: msgspec.structs.replace(getattr(Behaviour(), group), **{name: value})},
    )


def test_every_setting_can_be_read_and_set_again() -> None:
    before = Behaviour()
    for group, struct in GROUPS.items():
        for name in struct.__struct_fields__:
            value = msgspec.to_builtins(getattr(getattr(before, group), name))
            assert with_switches(before, {name: value}) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("covered_order=true", "'covered_order': is unknown; the nearest is covered_orders"),
        ("xyz=1", "'xyz': is unknown; there are covered_orders, stop_market_orders, "),
        ("covered_orders", "'covered_orders': must be name=value; the names are "),
        ("covered_orders=perhaps", "covered_orders='perhaps': "),
        ("ended_session_code=7", "ended_session_code='7': "),
        ("hours=later", "hours='later': must be one of always, exchange"),
        ("requests_per_second=0", "requests_per_second=0: must be at least 1"),
    ],
)
def test_a_setting_that_cannot_be_says_why(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_switches(Behaviour(), read_switches([text]))
    assert message in str(caught.value)


# --- while it is open -----------------------------------------------------------------------------


async def test_a_setting_changes_what_happens_next_and_survives_a_reset() -> None:
    async with trading() as caller:
        cover = {"pc": "CO", "tp": "37.00"}
        assert (await caller.place(**cover)).json()["stCode"] == 1017
        settings = (await caller.admin("POST", "settings", json={"covered_orders": True})).json()
        assert settings["covered_orders"] is True
        assert (await caller.place(**cover)).json()["stat"] == "Ok"
        await caller.admin("POST", "reset")
        assert (await caller.place(**cover)).json()["stat"] == "Ok"
        caller.exchange.set(covered_orders=False, refusals_as_200=True)
        refused = await caller.place(**cover)
        assert (refused.status, refused.json()["stCode"]) == (200, 1017)
        assert (await caller.admin("GET", "settings")).json()["refusals_as_200"] is True


async def test_a_broker_that_changes_no_types_refuses_them_and_takes_other_changes() -> None:
    async with trading() as caller:
        number = await caller.placed()
        change = {"no": number, "pr": "37.05", "pt": "L", "qt": "10"}
        caller.exchange.set(type_changes=False)
        stop = {**change, "pt": "SL", "tp": "37.00"}
        refused = (await caller.post("/quick/order/vr/modify", stop)).json()
        assert refused["stCode"] == 1009
        assert "please provide valid order type" in str(refused)
        assert (await caller.post("/quick/order/vr/modify", change)).json()["stat"] == "Ok"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"hours": "exchange"}, "hours: can only be set when the exchange is opened"),
        ({"token_seconds": 5}, "token_seconds: can only be set when"),
        ({"covered_orders": True, "nope": 1}, "'nope': is unknown"),
        ({"covered_orders": 3}, "covered_orders=3: "),
        ([1], "send {"),
    ],
)
async def test_what_cannot_be_changed_says_so_and_changes_nothing(
    content: object, message: str
) -> None:
    async with visiting() as caller:
        refused = await caller.admin("POST", "settings", json=content)
        assert refused.status == 400
        assert message in refused.json()["error"]
        assert not caller.exchange.market.rules.covered_orders


# --- prices by symbol -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["RELIANCE-EQ", "reliance-eq", "nse_cm|2885", "nse_cm:RELIANCE-EQ", "nse_cm:RELIANCE"],
)
async def test_a_price_prints_by_symbol_in_rupees(name: str) -> None:
    async with visiting(market_makers=False) as caller:
        exchange = caller.exchange
        exchange.print_price(name, "1420.50")
        listing = find_listing(exchange.market, "nse_cm|2885")
        assert exchange.market.last_price(listing) == 1420_50
        answered = await caller.admin("POST", "price", json={"instrument": name, "price": 1421})
        assert answered.json() == {
            "segment": "nse_cm",
            "token": "2885",
            "symbol": "RELIANCE-EQ",
            "price": 1421.0,
        }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RELIANCE", "name one of nse_cm:RELIANCE-EQ, bse_cm:RELIANCE"),
        ("RELAINCE-EQ", "is not listed here; the nearest are nse_cm:RELIANCE-EQ"),
        ("nse:RELIANCE-EQ", "its segment must be one of nse_cm, "),
        ("nse_fo:NIFTY26DEC24501CE", "the nearest are nse_fo:NIFTY26DEC24"),
        ("2885", "is not listed here"),
    ],
)
async def test_an_instrument_that_is_not_found_names_the_nearest(name: str, message: str) -> None:
    async with visiting() as caller:
        with pytest.raises(UsageError) as caught:
            caller.exchange.print_price(name, 1420)
        assert message in str(caught.value)


@pytest.mark.parametrize("price", [0, -1, "0", "", "14.205", "1e3", float("nan")])
async def test_a_price_must_be_rupees(price: str | float) -> None:
    async with visiting() as caller:
        with pytest.raises(UsageError, match="must be rupees above 0, such as 1420"):
            caller.exchange.print_price("RELIANCE-EQ", price)
