"""Kite's door with a caller made of plain aiohttp: headers, paths, refusals in Kite's shape."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from neo_async.config import RateLimits
from neo_async.exchange import Exchange, Faults
from tests.exchange.callers import START, Answered, Caller, Clock, visiting
from tests.exchange.serving import Process, exchange_process

ISIN = "INF174K01LS2"
DAY = 86_400


async def call(
    caller: Caller, method: str, path: str, headers: dict[str, str] | None = None, **form: object
) -> Answered:
    kite = caller.exchange.kite
    sent = {
        "X-Kite-Version": "3",
        "Authorization": f"token {kite.api_key}:{kite.access_token}",
    } | (headers or {})
    return await caller.request(
        method,
        caller.exchange.kite_url + path,
        headers={name: value for name, value in sent.items() if value},
        data={name: str(value) for name, value in form.items()} or None,
    )


async def placed(caller: Caller, **changes: object) -> str:
    form = {"tradingsymbol": ISIN, "transaction_type": "BUY", "amount": 5000} | changes
    answer = await call(caller, "POST", "/mf/orders", **form)
    assert answer.status == 200, answer.body
    number: str = answer.json()["data"]["order_id"]
    return number


def assert_refused(answer: Answered, status: int, error_type: str, text: str) -> None:
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["data"], body["error_type"]) == ("error", None, error_type)
    assert text in body["message"]


@pytest.mark.parametrize(
    ("headers", "status", "error_type", "text"),
    [
        ({"X-Kite-Version": ""}, 400, "InputException", "X-Kite-Version"),
        ({"X-Kite-Version": "2"}, 400, "InputException", "X-Kite-Version"),
        ({"Authorization": ""}, 403, "TokenException", "Incorrect `api_key`"),
        ({"Authorization": "token a:b"}, 403, "TokenException", "Incorrect `api_key`"),
        ({"Authorization": "Bearer x"}, 403, "TokenException", "Incorrect `api_key`"),
    ],
)
async def test_headers_are_checked(
    headers: dict[str, str], status: int, error_type: str, text: str
) -> None:
    async with visiting() as caller:
        for path in ("/mf/holdings", "/mf/instruments", "/mf/nothing"):
            answer = await call(caller, "GET", path, headers)
            assert_refused(answer, status, error_type, text)


async def test_a_token_of_another_application_is_none() -> None:
    async with visiting() as caller:
        token = caller.exchange.kite.access_token
        answer = await call(caller, "GET", "/mf/orders", {"Authorization": f"token other:{token}"})
        assert_refused(answer, 403, "TokenException", "Incorrect")


async def test_paths_and_methods() -> None:
    async with visiting() as caller:
        assert (await call(caller, "GET", "/mf/sips/")).json() == {"status": "success", "data": []}
        assert_refused(await call(caller, "GET", "/mf/else"), 404, "GeneralException", "Route")
        assert_refused(await call(caller, "PATCH", "/mf/orders"), 405, "GeneralException", "PATCH")
        assert_refused(await call(caller, "PUT", "/mf/orders/1"), 405, "GeneralException", "PUT")
        answer = await call(caller, "GET", "/mf/orders/1")
        assert_refused(answer, 404, "GeneralException", "There is no order 1.")
        answer = await call(caller, "PUT", "/mf/sip/1", amount=5)  # without the s, as documented
        assert_refused(answer, 404, "GeneralException", "There is no SIP 1.")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tradingsymbol": ""}, "Missing `tradingsymbol`"),
        ({"transaction_type": "HOLD"}, "one of BUY, SELL"),
        ({"amount": ""}, "Missing `amount`"),
        ({"amount": "much"}, "`amount`: has to be a number"),
        ({"amount": "-1"}, "`amount`: has to be a number"),
        ({"amount": "0"}, "above 0"),
        ({"amount": "5000.001"}, "2 decimals"),
        ({"quantity": "1"}, "`quantity` is not applicable on a BUY"),
        ({"tag": "ninechars"}, "`tag`"),
        ({"transaction_type": "SELL"}, "`amount` is not applicable on a SELL"),
        ({"tradingsymbol": "INF000000000"}, "is not available"),
    ],
)
async def test_orders_that_cannot_be_read_are_refused(changes: dict[str, str], text: str) -> None:
    async with visiting() as caller:
        form = {"tradingsymbol": ISIN, "transaction_type": "BUY", "amount": "5000"} | changes
        answer = await call(caller, "POST", "/mf/orders", **form)
        assert_refused(answer, 400, "InputException", text)
        assert caller.exchange.funds.orders() == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"frequency": "daily"}, "one of weekly, monthly, quarterly"),
        ({"frequency": "monthly"}, "one of 1, 5, 10"),
        ({"frequency": "monthly", "instalment_day": "x"}, "a whole number"),
        ({"instalments": "0"}, "-1 or a number"),
        ({"instalments": ""}, "Missing `instalments`"),
        ({"initial_amount": "0"}, "above 0"),
    ],
)
async def test_sips_that_cannot_be_read_are_refused(changes: dict[str, str], text: str) -> None:
    async with visiting() as caller:
        form = {"tradingsymbol": ISIN, "amount": "1000", "frequency": "weekly", "instalments": "-1"}
        answer = await call(caller, "POST", "/mf/sips", **(form | changes))
        assert_refused(answer, 400, "InputException", text)


async def test_rows_have_the_keys_of_the_documents_samples() -> None:
    import json

    samples = Path(__file__).parents[2] / "payloads" / "kite"

    def keys(name: str) -> set[str]:
        data = json.loads((samples / name).read_bytes())["data"]
        return set(data[0] if isinstance(data, list) else data)

    async with visiting() as caller:
        number = await placed(caller)
        form = {"tradingsymbol": "INF205K01NT8", "amount": 500, "frequency": "weekly"}
        answer = await call(caller, "POST", "/mf/sips", instalments=-1, **form)
        sip = answer.json()["data"]["sip_id"]
        assert len(sip) == 15
        for path, name in (
            ("/mf/orders", "orders.json"),
            ("/mf/sips", "sips.json"),
            (f"/mf/sips/{sip}", "sip.json"),
            ("/mf/holdings", "holdings.json"),
        ):
            data = (await call(caller, "GET", path)).json()["data"]
            assert set(data[0] if isinstance(data, list) else data) == keys(name)
        (listed,) = (await call(caller, "GET", "/mf/orders")).json()["data"]
        assert (await call(caller, "GET", f"/mf/orders/{number}")).json()["data"] == listed


async def test_a_status_change_and_a_cancelled_sip() -> None:
    async with visiting() as caller:
        form = {"tradingsymbol": "INF205K01NT8", "amount": 500, "frequency": "weekly"}
        answer = await call(caller, "POST", "/mf/sips", instalments=-1, **form)
        path = f"/mf/sips/{answer.json()['data']['sip_id']}"
        answer = await call(caller, "PUT", path, status="cancelled")
        assert_refused(answer, 400, "InputException", "one of active, paused")
        assert (await call(caller, "PUT", path, status="paused")).status == 200
        assert (await call(caller, "GET", "/mf/sips")).json()["data"][0]["status"] == "PAUSED"
        assert (await call(caller, "DELETE", path)).status == 200
        assert (await call(caller, "GET", "/mf/sips")).json()["data"] == []
        row = (await call(caller, "GET", path)).json()["data"]
        assert (row["status"], row["next_instalment"]) == ("CANCELLED", None)
        assert_refused(await call(caller, "DELETE", path), 400, "InputException", "is cancelled")


async def test_instruments_are_gzipped_csv() -> None:
    async with visiting() as caller:
        async with caller.http.get(
            f"{caller.exchange.kite_url}/mf/instruments",
            headers={
                "X-Kite-Version": "3",
                "Authorization": f"token {caller.exchange.kite.api_key}:"
                f"{caller.exchange.kite.access_token}",
            },
            auto_decompress=False,
        ) as response:
            assert response.headers["Content-Type"] == "text/csv"
            assert response.headers["Content-Encoding"] == "gzip"
            text = gzip.decompress(await response.read()).decode()
        header = (Path(__file__).parents[2] / "payloads/kite/instruments.csv").read_text()
        assert text.splitlines()[0] == header.splitlines()[0]
        rows = {row["tradingsymbol"]: row for row in csv.DictReader(io.StringIO(text))}
        assert rows[ISIN]["last_price_date"] == "2026-11-20"
        assert any("," in row["name"] for row in rows.values())
        caller.clock.now = START + DAY
        answer = await call(caller, "GET", "/mf/instruments")
        (row,) = [one for one in csv.DictReader(io.StringIO(answer.body.decode()))
                  if one["tradingsymbol"] == ISIN]  # fmt: skip
        assert row["last_price_date"] == "2026-11-23"
        assert row["last_price"] != rows[ISIN]["last_price"]


async def test_more_than_ten_in_a_second_are_too_many() -> None:
    async with visiting(limits=RateLimits()) as caller:
        answers = [await call(caller, "GET", "/mf/orders") for _ in range(11)]
        assert [answer.status for answer in answers] == [200] * 10 + [429]
        assert_refused(answers[-1], 429, "NetworkException", "Too many requests")
        caller.clock.now += 1
        assert (await call(caller, "GET", "/mf/orders")).status == 200


async def test_the_login_page_wants_the_right_key() -> None:
    async with visiting() as caller:
        url = f"{caller.exchange.kite_url}/connect/login"
        answer = await caller.request("GET", f"{url}?api_key=other")
        assert_refused(answer, 403, "TokenException", "Invalid `api_key`")
        assert_refused(await caller.request("GET", url), 400, "InputException", "Missing `api_key`")


async def test_faults_speak_kites_words() -> None:
    async with visiting(faults=Faults(throttle=1.0, calls=("reads",))) as caller:
        answer = await call(caller, "GET", "/mf/orders")
        assert_refused(answer, 429, "NetworkException", "Too many requests")
        await placed(caller)
        caller.exchange.faults.set(Faults(lose_before=1.0, calls=("logins",)))
        assert (await call(caller, "GET", "/mf/orders")).status == 200


async def test_a_reset_begins_anew() -> None:
    async with visiting() as caller:
        number = await placed(caller)
        await caller.request("POST", f"{caller.exchange.admin_url}/reset", json={})
        assert (await call(caller, "GET", "/mf/orders")).json()["data"] == []
        assert await placed(caller) == number


async def test_the_clock_of_the_exchange_runs_the_batch() -> None:
    async with visiting() as caller:
        await placed(caller)
        await caller.request(
            "POST", f"{caller.exchange.admin_url}/clock", json={"now": "2026-11-23T13:30:00"}
        )
        (row,) = (await call(caller, "GET", "/mf/orders")).json()["data"]
        assert row["status"] == "COMPLETE"


async def test_the_application_is_the_same_for_the_same_seed_and_hides_its_secrets() -> None:
    one, two, other = (Exchange(seed=seed).kite for seed in (1, 1, 2))
    assert one == two != other
    assert one.api_secret not in repr(one)
    assert one.access_token not in repr(one)


# --- the state file -------------------------------------------------------------------------------


async def test_funds_are_kept_in_the_state_file(tmp_path: Path) -> None:
    path = tmp_path / "paper.db"
    clock = Clock()
    async with visiting(state=path, clock=clock) as caller:
        number = await placed(caller, tag="kept")
        form = {"tradingsymbol": "INF205K01NT8", "amount": 500, "frequency": "weekly"}
        await call(caller, "POST", "/mf/sips", instalments=-1, **form)
    clock.now += 7 * DAY
    async with visiting(state=path, clock=clock) as caller:
        row = (await call(caller, "GET", f"/mf/orders/{number}")).json()["data"]
        assert (row["status"], row["tag"], row["exchange_timestamp"]) == (
            "COMPLETE",
            "kept",
            "2026-11-23",
        )
        (sip,) = (await call(caller, "GET", "/mf/sips")).json()["data"]
        assert sip["completed_instalments"] == 1
        await caller.request("POST", f"{caller.exchange.admin_url}/reset", json={})
    async with visiting(state=path, clock=clock) as caller:
        assert (await call(caller, "GET", "/mf/orders")).json()["data"] == []


@pytest.mark.real_time("kills a real process")
async def test_what_was_answered_survives_sigkill(tmp_path: Path) -> None:
    async def orders(process: Process, http: aiohttp.ClientSession, **form: str) -> Any:
        kite = process.kite
        async with http.request(
            "POST" if form else "GET",
            f"{process.kite_url}/mf/orders",
            data=form or None,
            headers={
                "X-Kite-Version": "3",
                "Authorization": f"token {kite['api_key']}:{kite['access_token']}",
            },
        ) as answer:
            return (await answer.json())["data"]

    path = tmp_path / "paper.db"
    form = {"tradingsymbol": ISIN, "transaction_type": "BUY", "amount": "5000"}
    async with aiohttp.ClientSession() as http:
        async with exchange_process(path) as process:
            placed = [await orders(process, http, **form) for _ in range(3)]
            process.kill()
        async with exchange_process(path) as process:
            listed = await orders(process, http)
    assert [row["order_id"] for row in reversed(listed)] == [one["order_id"] for one in placed]
