"""Tokens, API keys, plans, repeated requests, and what comes before any service."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from typing import Any

import pytest

from neo_async.errors import UsageError
from neo_async.exchange import BankSettings
from tests.exchange.bank.teller import CREATE, FETCH, INQUIRY, NUMBER, Teller, at_the_bank

ITEM = {"virtualAccountNumber": NUMBER, "name": "Asha Rao"}
KEY = "1f0c9a4e-7c1e-4c1e-9e0a-0c1d2e3f4a5b"


async def test_a_token_is_good_for_an_hour_of_the_exchanges_clock() -> None:
    async with at_the_bank() as teller:
        granted = (await teller.ask_for_token()).json()
        assert granted == {
            "access_token": granted["access_token"],
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "oob",
        }
        teller.token = granted["access_token"]
        teller.exchange.advance_clock(3599)
        await teller.told(FETCH)
        teller.exchange.advance_clock(1)
        assert await teller.refused(FETCH) == (401, "VA0401")


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "l7xx"}, 401, "invalid_client"),
        ({"client_id": ""}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
async def test_who_is_no_client_gets_no_token(changes: Any, status: int, error: str) -> None:
    async with at_the_bank() as teller:
        refused = await teller.ask_for_token(**changes)
        assert (refused.status, refused.json()["error"]) == (status, error)
        assert refused.json()["error_description"]


async def test_credentials_may_come_as_basic_authorization() -> None:
    async with at_the_bank() as teller:
        for secret, status in ((teller.client.client_secret, 200), ("wrong", 401)):
            pair = f"{teller.client.client_id}:{secret}".encode()
            granted = await teller.request(
                "POST",
                "/auth/oauth/v2/token",
                data={"grant_type": "client_credentials"},
                headers={"Authorization": f"Basic {base64.b64encode(pair).decode()}"},
            )
            assert granted.status == status


@pytest.mark.parametrize(
    "authorization", ["", "Bearer ", "Bearer nobody's", "Basic eDp5", "Basic \xff"]
)
async def test_without_a_token_nobody_is_served(authorization: str) -> None:
    async with at_the_bank() as teller:
        refused = await teller.call(FETCH, headers={"Authorization": authorization})
        assert (refused.status, refused.json()["errorCode"]) == (401, "VA0401")


async def test_an_api_key_does_instead_of_a_token() -> None:
    async with at_the_bank() as teller:
        body = {"requestId": KEY, "clientName": "ACME", "physicalAccount": teller.physical}
        for key, status in ((teller.client.client_id, 200), ("other", 401)):
            answered = await teller.request(
                "POST", "/va/v1/transactions/fetch", params={"apikey": key}, json=body
            )
            assert answered.status == status


async def test_ended_tokens_are_good_no_more() -> None:
    async with at_the_bank() as teller:
        teller.exchange.bank.end_tokens()
        assert await teller.refused(FETCH) == (401, "VA0401")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/va/v1/accounts/open", 404, "VA0404"),
        ("GET", "/va/v1/accounts/create", 405, "VA0404"),
        ("GET", "/", 404, "VA0404"),
    ],
)
async def test_paths_that_are_none(method: str, path: str, status: int, code: str) -> None:
    async with at_the_bank() as teller:
        refused = await teller.request(method, path)
        assert (refused.status, refused.json()["errorCode"]) == (status, code)


@pytest.mark.parametrize("body", [
    "", "{", "[]", "null", "\xff", "[" * 100_000, '{"requestId":' + "[" * 100_000,
    '{"requestId":"\xff"}', '{"requestId":' + "9" * 5000 + "}",
])  # fmt: skip
async def test_bodies_that_are_none(body: str) -> None:
    async with at_the_bank() as teller:
        headers = {"Authorization": f"Bearer {teller.token}"}
        refused = await teller.request(
            "POST", f"/va/v1/{FETCH}", data=body.encode("latin-1"), headers=headers
        )
        assert refused.status == 400
        assert refused.json()["errorCode"] in ("VA0400", "VA1001")


@pytest.mark.parametrize(
    "item", ["[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, '"\xff"', "1e999"]
)
async def test_an_item_that_cannot_be_read_is_refused_by_its_place(item: str) -> None:
    async with at_the_bank() as teller:
        body = (
            f'{{"requestId":"{uuid.uuid4()}","clientName":"{teller.client.name}",'
            f'"physicalAccount":"{teller.physical}","accounts":[{item}]}}'
        )
        headers = {"Authorization": f"Bearer {teller.token}"}
        answered = await teller.request(
            "POST", "/va/v1/accounts/create", data=body.encode("latin-1"), headers=headers
        )
    assert answered.status in (200, 400)
    assert b"VA1001" in answered.body or b"VA0400" in answered.body


# --- plans ----------------------------------------------------------------------------------------


async def test_the_plan_allows_five_calls_in_any_second() -> None:
    async with at_the_bank(bank=BankSettings()) as teller:
        for _ in range(5):
            await teller.told(FETCH)
        refused = await teller.call(FETCH)
        assert (refused.status, refused.json()["errorCode"]) == (429, "VA0429")
        assert refused.headers["Retry-After"] == "1"
        teller.clock.now += 1
        await teller.told(FETCH)


async def test_the_plan_ends_with_the_day_in_india() -> None:
    plan = BankSettings(requests_per_second=None, requests_per_day=3, token_seconds=10**6)
    async with at_the_bank(bank=plan) as teller:
        for _ in range(3):
            await teller.told(FETCH)
        refused = await teller.call(FETCH)
        assert (refused.status, refused.headers["Retry-After"]) == (429, str(14 * 3600))
        teller.clock.now += 14 * 3600 - 1
        assert (await teller.refused(FETCH))[0] == 429
        teller.clock.now += 1
        await teller.told(FETCH)


def test_a_plan_that_allows_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="requests_per_day=0: must be at least 1"):
        BankSettings(requests_per_day=0)


# --- the same request again -----------------------------------------------------------------------


async def create(teller: Teller, key: str | None, request_id: str = KEY, **fields: object) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await teller.call(CREATE, headers, requestId=request_id, accounts=[ITEM | fields])


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_repeated_request_gets_the_first_answer(key: str | None) -> None:
    async with at_the_bank() as teller:
        first, again = [await create(teller, key) for _ in range(2)]
        assert again.body == first.body
        assert b'"SUCCESS"' in again.body
        assert "Idempotent-Replay" not in first.headers
        assert again.headers["Idempotent-Replay"] == "true"


async def test_the_first_answer_is_repeated_for_a_day() -> None:
    async with at_the_bank(bank=BankSettings(token_seconds=10**6)) as teller:
        await create(teller, KEY)
        teller.clock.now += 86_399
        assert b"VA1002" not in (await create(teller, KEY)).body
        teller.clock.now += 1
        assert b"VA1002" in (await create(teller, KEY)).body


async def test_a_refusal_is_repeated_too() -> None:
    async with at_the_bank() as teller:
        first = await teller.call("refunds/create", requestId=KEY, transactionReference="X")
        again = await teller.call("refunds/create", requestId=KEY, transactionReference="X")
        assert (first.status, again.status) == (404, 404)
        assert first.body == again.body


async def test_a_key_is_for_one_request() -> None:
    async with at_the_bank() as teller:
        await create(teller, KEY)
        refused = await create(teller, KEY, name="somebody else")
        assert (refused.status, refused.json()["errorCode"]) == (409, "VA0409")
        elsewhere = await teller.call(
            "accounts/delete", {"Idempotency-Key": KEY}, requestId=KEY, accounts=[ITEM]
        )
        assert elsewhere.status == 409
        (found,) = await teller.results(INQUIRY, ITEM)
        assert (found["name"], found["accountStatus"]) == ("Asha Rao", "ACTIVE")


async def test_who_calls_is_asked_before_a_first_answer_is_repeated() -> None:
    async with at_the_bank() as teller:
        await create(teller, KEY)
        teller.token = ""
        assert (await create(teller, KEY)).status == 401


# --- where it is ----------------------------------------------------------------------------------


async def test_the_ready_line_leads_to_the_bank() -> None:
    async with at_the_bank() as teller:
        ready = json.loads(json.dumps(teller.exchange.ready()))
        assert ready["bank_url"] == teller.exchange.bank_url
        first, second = ready["bank_clients"]
        assert (first["name"], first["client_id"]) == ("ACME", teller.client.client_id)
        assert not set(first["physical_accounts"]) & set(second["physical_accounts"])
        assert teller.client.client_secret not in repr(teller.client)
        assert teller.client.client_secret not in repr(teller.exchange.bank)


async def test_callers_do_not_wait_for_each_other() -> None:
    async with at_the_bank() as teller:
        await asyncio.gather(*(teller.told(FETCH) for _ in range(50)))
