"""Zerodha's own client, unmodified but for `root=`, through all of its mutual-fund calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any

import httpx
import kiteconnect.exceptions as kite_errors
import pytest
from kiteconnect import KiteConnect

from neo_async import RateLimits
from neo_async.exchange import Exchange
from neo_async.kite import KiteMutualFunds
from tests.conformance.conftest import NOON, _Loop

ISIN = "INF174K01LS2"
HELD = "INF205K01NT8"
WIDE = RateLimits(orders=10_000, total=10_000)
DAY = 86_400


@pytest.fixture
def house(loop: _Loop) -> Iterator[Exchange]:
    """An exchange of the test's own: its clock is moved."""
    exchange = Exchange(seed=7, limits=WIDE, clock=lambda: NOON, market_makers=False)

    async def enter() -> Exchange:
        return await exchange.__aenter__()

    yield loop.run(enter())
    loop.run(exchange.__aexit__(None, None, None))


@pytest.fixture
def kite(house: Exchange) -> Iterator[Any]:
    client = KiteConnect(house.kite.api_key, house.kite.access_token, root=house.kite_url)
    yield client
    client.reqsession.close()


@pytest.fixture
def later(house: Exchange) -> Callable[[float], None]:
    def move(seconds: float) -> None:
        url = f"{house.admin_url}/clock"
        httpx.post(url, json={"advance": seconds}).raise_for_status()

    return move


@pytest.fixture
def ours(house: Exchange, loop: _Loop, tmp_path: Any) -> Iterator[Callable[[str], Any]]:
    """Calls of our client, by name."""
    client = KiteMutualFunds(
        house.kite.api_key,
        house.kite.access_token,
        endpoints=house.kite_endpoints,
        rate_limit=1_000,
        directory=tmp_path,
    )
    yield lambda name, *arguments: loop.run(getattr(client, name)(*arguments))
    loop.run(client.close())


def same(theirs: dict[str, Any], mine: Any) -> None:
    """Every key of theirs is ours too, with the same value; their times have no zone."""
    for name, value in theirs.items():
        found = getattr(mine, name)
        if isinstance(found, datetime):
            found = found.replace(tzinfo=None)
        elif isinstance(found, date):
            found = found.isoformat() if isinstance(value, str) else found
        if name == "pnl":  # 0 there, reckoned here
            continue
        assert (found or None) == (value or None), name


def test_an_order_over_its_whole_life(kite: Any, later: Any, ours: Any) -> None:
    placed = kite.place_mf_order(ISIN, kite.TRANSACTION_TYPE_BUY, amount=5000, tag="conform")
    (order,) = kite.mf_orders()
    assert order["order_id"] == placed["order_id"]
    assert (order["status"], order["tag"], order["amount"]) == ("OPEN", "conform", 5000)
    assert isinstance(order["order_timestamp"], datetime)
    later(2 * 3600)
    order = kite.mf_orders(placed["order_id"])
    assert (order["status"], order["exchange_timestamp"]) == ("COMPLETE", "2026-11-23")
    same(order, ours("order", placed["order_id"]))
    *_, holding = kite.mf_holdings()
    assert (holding["tradingsymbol"], holding["quantity"]) == (ISIN, order["quantity"])
    assert holding["folio"] == order["folio"]
    for theirs, mine in zip(kite.mf_holdings(), ours("holdings"), strict=True):
        same(theirs, mine)
    sold = kite.place_mf_order(ISIN, kite.TRANSACTION_TYPE_SELL, quantity=order["quantity"])
    later(2 * DAY)  # over a holiday
    order = kite.mf_orders(sold["order_id"])
    assert (order["status"], order["purchase_type"]) == ("COMPLETE", None)
    for theirs, mine in zip(kite.mf_orders(), ours("orders"), strict=True):
        same(theirs, mine)


def test_cancelling(kite: Any) -> None:
    placed = kite.place_mf_order(ISIN, "BUY", amount=5000)
    assert kite.cancel_mf_order(placed["order_id"]) == placed
    assert kite.mf_orders(placed["order_id"])["status"] == "CANCELLED"
    with pytest.raises(kite_errors.OrderException, match="CANCELLED") as caught:
        kite.cancel_mf_order(placed["order_id"])
    assert caught.value.code == 400


def test_a_sip_over_its_whole_life(kite: Any, later: Any, ours: Any) -> None:
    placed = kite.place_mf_sip(
        ISIN, 1000, -1, "monthly", initial_amount=5000, instalment_day=1, tag="sip"
    )
    (sip,) = kite.mf_sips()
    assert sip["sip_id"] == placed["sip_id"]
    assert (sip["status"], sip["next_instalment"]) == ("ACTIVE", "2026-12-01")
    assert isinstance(sip["created"], datetime)
    same(sip, ours("sips")[0])
    later(9 * DAY)
    sip = kite.mf_sips(placed["sip_id"])
    assert sip["completed_instalments"] == 1
    assert [order["variety"] for order in kite.mf_orders()] == ["sip"]
    assert kite.modify_mf_sip(
        placed["sip_id"], amount=1500, status="paused", instalments=12, frequency="weekly"
    ) == {"sip_id": placed["sip_id"]}
    sip = kite.mf_sips(placed["sip_id"])
    assert (sip["status"], sip["instalment_amount"], sip["frequency"]) == ("PAUSED", 1500, "weekly")
    assert (sip["pending_instalments"], sip["instalment_day"]) == (11, 0)
    same(sip, ours("sip", placed["sip_id"]))
    assert kite.cancel_mf_sip(placed["sip_id"]) == placed
    assert kite.mf_sips() == []
    assert kite.mf_sips(placed["sip_id"])["status"] == "CANCELLED"


def test_the_list_of_funds(kite: Any, ours: Any) -> None:
    theirs = kite.mf_instruments()
    mine = ours("instruments")
    assert len(theirs) == len(mine) > 150
    for row in theirs:
        same(row, mine[row["tradingsymbol"]])


@pytest.mark.parametrize(
    ("act", "error", "status"),
    [
        (lambda kite: kite.place_mf_order(ISIN, "BUY"), "InputException", 400),
        (lambda kite: kite.place_mf_order(ISIN, "BUY", amount=1), "InputException", 400),
        (lambda kite: kite.place_mf_order(HELD, "SELL", quantity=999), "OrderException", 400),
        (lambda kite: kite.mf_orders("none"), "GeneralException", 404),
        (lambda kite: kite.mf_sips("none"), "GeneralException", 404),
        (lambda kite: kite.place_mf_sip(ISIN, 1000, -1, "weekly"), "InputException", 400),
    ],
)
def test_refusals_are_its_exceptions(kite: Any, act: Any, error: str, status: int) -> None:
    with pytest.raises(getattr(kite_errors, error)) as caught:
        act(kite)
    assert caught.value.code == status


def test_the_login_flow(house: Exchange, kite: Any) -> None:
    login = KiteConnect(house.kite.api_key, root=house.kite_url)
    page = httpx.get(f"{house.kite_url}/connect/login", params={"api_key": login.api_key, "v": 3})
    token = httpx.URL(page.headers["Location"]).params["request_token"]
    session = login.generate_session(token, house.kite.api_secret)
    assert session["user_id"] == house.kite.user_id
    assert isinstance(session["login_time"], datetime)
    assert len(login.mf_holdings()) == 2
    renewed = login.renew_access_token(session["refresh_token"], house.kite.api_secret)
    assert renewed["access_token"] != session["access_token"]
    hooks: list[int] = []
    login.set_session_expiry_hook(lambda: hooks.append(1))
    assert login.invalidate_access_token() is True
    with pytest.raises(kite_errors.TokenException):
        login.mf_orders()
    assert hooks == [1]
    with pytest.raises(kite_errors.TokenException, match="checksum"):
        login.generate_session(token, "wrong")
    login.reqsession.close()
