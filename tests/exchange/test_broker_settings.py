"""Rules of the broker that an exchange may be opened with, and older ways to the same door."""

from __future__ import annotations

from typing import Any, get_args

import aiohttp
import pytest

from neo_async.exchange import BrokerSettings
from neo_async.exchange.rest.settings import ENDED_SESSION_TEXTS, EndedSessionCode
from tests.clients import client_of, exchange_of, logins
from tests.exchange.callers import Caller, trading, visiting
from tests.exchange_settings import EVERY_ORDER

BRACKET = {
    "pc": "BO",
    "pr": "39.40",
    "sot": "Absolute",
    "sov": "0.50",
    "slt": "Ticks",
    "slv": "20",
    "tlt": "N",
    "tsv": "0",
    "lat": "39.40",
    "tk": "19084",
}


# --- bracket and cover orders ---------------------------------------------------------------------


async def filled_bracket(caller: Caller, **changes: object) -> tuple[dict[str, Any], ...]:
    """The entry, its stop and its target as the book shows them once the entry has filled."""
    number = await caller.placed(**(BRACKET | changes))
    price = {"segment": "nse_cm", "token": "19084", "price": "39.40"}
    await caller.admin("POST", "price", json=price)
    rows = await caller.book()
    (entry,) = (row for row in rows if row["nOrdNo"] == number)
    legs = {row["prcTp"]: row for row in rows if row["symOrdId"] == number}
    return entry, legs["SL"], legs["L"]


async def test_a_bracket_orders_exits_are_distances_in_rupees_or_ticks() -> None:
    async with trading(rules=EVERY_ORDER) as caller:
        entry, stop, target = await filled_bracket(caller)
        assert (entry["ordSt"], entry["prod"], entry["symOrdId"]) == ("complete", "BO", "NA")
        assert (target["prc"], target["trnsTp"], target["qty"]) == ("39.90", "S", 10)
        assert (stop["trgPrc"], stop["trnsTp"], stop["ordSt"]) == ("39.20", "S", "trigger pending")
        assert {stop["prod"], target["prod"]} == {"BO"}


async def test_a_trailing_stop_follows_in_its_steps() -> None:
    async with trading(rules=EVERY_ORDER) as caller:
        _, before, _ = await filled_bracket(caller, tlt="Y", tsv="5")
        price = {"segment": "nse_cm", "token": "19084", "price": "39.52"}
        await caller.admin("POST", "price", json=price)
        after = next(row for row in await caller.book() if row["nOrdNo"] == before["nOrdNo"])
        assert (before["trgPrc"], after["trgPrc"]) == ("39.20", "39.30")


@pytest.mark.parametrize("leg", [0, 1, 2])
async def test_a_bracket_order_is_exited_by_any_of_its_numbers(leg: int) -> None:
    async with trading(rules=EVERY_ORDER) as caller:
        number = (await filled_bracket(caller))[leg]["nOrdNo"]
        answered = await caller.post("/quick/order/bo/exit", {"on": number, "am": "NO"})
        assert answered.json() == {"nOrdNo": number, "stat": "Ok", "stCode": 200}
        states = {
            row["prcTp"]: row["ordSt"] for row in await caller.book() if row["symOrdId"] != "NA"
        }
        assert "trigger pending" not in states.values()


async def test_a_cover_orders_stop_is_the_trigger_it_came_with() -> None:
    async with trading(rules=EVERY_ORDER) as caller:
        number = await caller.placed(pc="CO", pr="39.40", tp="39.00")
        price = {"segment": "nse_cm", "token": "19084", "price": "39.40"}
        await caller.admin("POST", "price", json=price)
        (stop,) = (row for row in await caller.book() if row["symOrdId"] == number)
        assert (stop["trgPrc"], stop["trnsTp"], stop["prod"]) == ("39.00", "S", "CO")
        answered = await caller.post("/quick/order/co/exit", {"on": number, "am": "NO"})
        assert answered.json()["stat"] == "Ok"


@pytest.mark.parametrize(
    "wrong",
    [
        {"sot": "Percent"},
        {"sot": None},
        {"slv": None},
        {"slv": "0"},
        {"slt": "Absolute", "slv": "1e1"},
        {"tlt": "maybe"},
        {"tlt": "Y", "tsv": None},
    ],
)
async def test_a_bracket_order_with_unreadable_exits_is_refused(wrong: dict[str, object]) -> None:
    async with trading(rules=EVERY_ORDER) as caller:
        refused = await caller.place(**(BRACKET | wrong))
        assert (refused.status, refused.json()["stCode"]) == (400, 5202)
        assert caller.exchange.market.ledger == []


async def test_the_broker_of_today_refuses_both_products() -> None:
    async with trading() as caller:
        for product in (BRACKET, {"pc": "CO", "tp": "37.00"}):
            refused = (await caller.place(**product)).json()
            assert refused["stCode"] == 1017
            assert refused["errMsg"] == "BO/CO OrderType not allowed for TRADEAPI"


async def test_the_broker_of_today_rejects_stop_loss_market_orders_afterwards() -> None:
    async with trading() as caller:
        await caller.placed(pt="SL-M", pr="0", tp="39.60")
        (row,) = await caller.book()
        assert row["ordSt"] == "rejected"
        assert "Market order with Algo Id not allowed" in row["rejRsn"]


# --- static addresses -----------------------------------------------------------------------------

ELSEWHERE = "127.0.0.2"


async def from_elsewhere(caller: Caller, path: str, arguments: object) -> dict[str, Any]:
    """A call from another address of this machine."""
    connector = aiohttp.TCPConnector(local_addr=(ELSEWHERE, 0))
    async with aiohttp.ClientSession(connector=connector) as http:
        other = Caller(caller.exchange, http, caller.clock)
        other.login_data = caller.login_data
        answered = await other.post(path, arguments)
        body: dict[str, Any] = answered.json()
        return body | {"http": answered.status}


CANCEL = ("/quick/order/cancel", {"on": "1", "am": "NO"})


async def test_orders_come_from_known_addresses_only() -> None:
    async with trading(broker=BrokerSettings(static_ips=("10.1.2.3",))) as caller:
        for path, arguments in (
            CANCEL,
            ("/quick/order/rule/ms/place", {}),
            ("/quick/order/vr/modify", {}),
        ):
            refused = await caller.post(path, arguments)
            assert refused.status == 403
            assert refused.json() == {
                "stCode": 100008,
                "errMsg": "unauthorized",
                "emsg": "unauthorized",
                "stat": "Not_Ok",
            }
        # Everything else goes by the login alone.
        assert (await caller.get("/quick/user/orders")).json()["stCode"] == 5203


async def test_orders_come_from_where_the_login_came_from() -> None:
    settings = BrokerSettings(static_ips=("127.0.0.1", ELSEWHERE))
    async with trading(broker=settings) as caller:
        assert (await caller.place()).json()["stat"] == "Ok"
        refused = await from_elsewhere(caller, *CANCEL)
        assert (refused["http"], refused["stCode"]) == (403, 1037)
        assert refused["errMsg"] == "session ip doesnt match with reqest ip"


async def test_without_the_rule_an_order_may_come_from_anywhere() -> None:
    async with trading() as caller:
        number = await caller.placed()
        answered = await from_elsewhere(caller, "/quick/order/cancel", {"on": number, "am": "NO"})
        assert answered["stat"] == "Ok"


async def test_the_addresses_on_record_may_be_looked_up() -> None:
    async with trading(broker=BrokerSettings(static_ips=("127.0.0.1",))) as caller:
        told = (await caller.get("/registration/subscription")).json()["data"]
        assert told == {"primaryIp": "127.0.0.1", "secondaryIp": "", "status": "ACTIVE"}
    async with trading() as caller:
        told = (await caller.get("/registration/subscription")).json()["data"]
        assert told == {"primaryIp": "", "secondaryIp": "", "status": "INACTIVE"}


# --- logging in -----------------------------------------------------------------------------------


async def test_failed_logins_may_be_answered_with_status_200() -> None:
    async with visiting(broker=BrokerSettings(login_failures_as_200=True)) as caller:
        refused = await caller.first_step(ucc="NOONE")
        assert (refused.status, refused.json()) == (
            200,
            {"stCode": 401, "errMsg": "Invalid credentials or TOTP", "status": "failure"},
        )
        view = (await caller.first_step()).json()["data"]
        refused = await caller.second_step(view, mpin="000000")
        assert (refused.status, refused.json()) == (
            200,
            {"stCode": 401, "errMsg": "Invalid MPIN", "status": "failure"},
        )


@pytest.mark.parametrize("path", ["/login/1.0", "/apim/login/2.0", "/api/1.0"])
async def test_older_paths_lead_to_the_same_login(path: str) -> None:
    async with visiting() as caller:
        root = f"{caller.exchange.login_url}{path}/login/v6/totp"
        credentials = caller.credentials
        form = {
            "mobileNumber": credentials.mobile_number,
            "ucc": credentials.ucc,
            "totp": caller.code(),
        }
        headers = {
            "Authorization": f"Bearer {credentials.consumer_key}",
            "neo-fin-key": "neotradeapi",
        }
        first = await caller.request("POST", f"{root}/login", json=form, headers=headers)
        view = first.json()["data"]
        headers |= {"sid": view["sid"], "Auth": view["token"]}
        mpin = {"mpin": credentials.mpin}
        second = await caller.request("POST", f"{root}/validate", json=mpin, headers=headers)
        assert second.json()["data"]["baseUrl"] == caller.exchange.base_url


async def test_the_base_url_may_be_looked_up() -> None:
    async with visiting() as caller:
        url = f"{caller.exchange.login_url}/algo-user/v5/get-base-url?id={caller.credentials.ucc}"
        answered = await caller.request("GET", url)
        assert answered.json() == {"data": {"baseURL": caller.exchange.base_url}}


# --- repeated tags --------------------------------------------------------------------------------


async def test_a_repeated_tag_may_be_refused_with_the_older_code() -> None:
    async with trading(broker=BrokerSettings(old_duplicate_code=True)) as caller:
        await caller.placed(ig="once")
        refused = await caller.place(ig="once")
        assert refused.status == 200
        assert refused.json()["stCode"] == 5204
        assert refused.json()["errMsg"] == ("Put Order Response : Client OrderID already exists")


# --- ended sessions -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", get_args(EndedSessionCode))
async def test_an_ended_session_may_be_refused_with_any_code_that_was_seen(code: int) -> None:
    async with trading(broker=BrokerSettings(ended_session_code=code)) as caller:
        caller.exchange.end_sessions()
        refused = await caller.get("/quick/user/orders")
        text = ENDED_SESSION_TEXTS[code]
        assert refused.status == 403
        assert refused.json() == {
            "stCode": code,
            "errMsg": text,
            "emsg": text,
            "stat": "Not_Ok",
        }


async def test_the_margin_check_of_an_ended_session_has_its_own_words() -> None:
    async with trading(broker=BrokerSettings(ended_session_code=100022)) as caller:
        caller.exchange.end_sessions()
        refused = (await caller.post("/quick/user/check-margin", {})).json()
        assert refused == {
            "stCode": 100022,
            "errMsg": "invalid session token",
            "stat": "error in neo-login-check-api",
        }


@pytest.mark.parametrize("code", get_args(EndedSessionCode))
async def test_our_client_logs_in_again_whatever_the_code(code: int) -> None:
    settings = BrokerSettings(ended_session_code=code)
    async with exchange_of(broker=settings) as exchange, client_of(exchange) as neo:
        exchange.end_sessions()
        assert await neo.orders.book() == []
        assert await logins(exchange) == 2
