"""One token for all, renewed in time and once."""

from __future__ import annotations

import asyncio
import logging
import traceback

import pytest
from aiohttp import web

from neo_async.banking import VirtualAccount, VirtualAccounts
from neo_async.errors import (
    LoginFailed,
    NeoError,
    NotSent,
    RateLimited,
    RefundUnknown,
    SessionEnded,
    UsageError,
)
from tests.banking.small_bank import CLIENT_ID, CLIENT_SECRET, SmallBank, client_of, serving
from tests.fake_servers import tcp_server

ACCOUNT = "ACME00000001"


async def test_a_token_serves_until_shortly_before_its_end():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        await client.accounts(ACCOUNT)
        await asyncio.sleep(3530)
        await client.accounts(ACCOUNT)
        assert bank.tokens == 1
        await asyncio.sleep(15)
        await client.accounts(ACCOUNT)
        assert bank.tokens == 2


async def test_one_renewal_serves_all_who_wait():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        await asyncio.gather(*(client.accounts(ACCOUNT) for _ in range(20)))
        assert bank.tokens == 1
        bank._good.clear()
        await asyncio.gather(*(client.accounts(ACCOUNT) for _ in range(20)))
        assert bank.tokens == 2


async def test_one_who_gives_up_does_not_take_the_token_from_the_others():
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        first = asyncio.create_task(client.accounts(ACCOUNT))
        second = asyncio.create_task(client.accounts(ACCOUNT))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == []
        assert bank.tokens == 1


async def test_a_refused_token_is_renewed_once():
    bank = SmallBank(["401"])
    async with serving(bank), client_of(bank) as client:
        await client.accounts(ACCOUNT)
        assert bank.tokens == 2
        bank.faults = iter(["401", "401"])
        with pytest.raises(SessionEnded, match="token expired"):
            await client.accounts(ACCOUNT)


async def test_a_token_without_a_life_is_not_kept_for_long():
    bank = SmallBank()
    for _ in range(2):
        bank.token_answers.append(web.json_response({"access_token": "token-x"}))
    bank._good.add("token-x")
    async with serving(bank), client_of(bank) as client:
        await client.accounts(ACCOUNT)
        await asyncio.sleep(200)
        await client.accounts(ACCOUNT)
        assert len(bank.token_answers) == 1
        await asyncio.sleep(100)
        await client.accounts(ACCOUNT)
        assert not bank.token_answers


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: web.Response(status=503, text="<h1>down</h1>"), "the bank gave no token"),
        (lambda: web.Response(text="<h1>hello</h1>"), "holds none"),
        (lambda: web.json_response({"access_token": ""}), "holds an empty one"),
        (lambda: web.json_response({"access_token": "a\r\nX-Evil: 1"}), "not valid in a header"),
        (lambda: web.Response(text="[" * 100_000), "holds none"),
    ],
)
async def test_what_happens_to_the_token_has_not_happened_to_the_call(answer, message):
    bank = SmallBank()
    async with serving(bank), client_of(bank) as client:
        bank.token_answers += [answer() for _ in range(3)]
        with pytest.raises(NotSent, match=message):
            await client.refund("ACME", "REF00000001")
    assert bank.requests == []
    assert bank.token_answers == []


async def test_a_token_is_asked_for_again():
    bank = SmallBank()
    bank.token_answers.append(web.Response(status=503))
    bank.token_answers.append(web.Response(status=429, headers={"Retry-After": "7"}))
    async with serving(bank), client_of(bank) as client:
        assert await client.accounts(ACCOUNT) == []
    assert asyncio.get_running_loop().time() > 7


async def test_a_refusal_of_the_gateway_is_quoted():
    bank = SmallBank()
    bank.token_answers.append(web.json_response({"error": "invalid_client"}, status=400))
    bank.token_answers.append(web.Response(text="no", status=403))
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(LoginFailed, match=r"\(invalid_client\): check client id"):
            await client.accounts(ACCOUNT)
        with pytest.raises(LoginFailed, match="no reason given"):
            await client.accounts(ACCOUNT)


async def test_no_secret_in_anything_that_can_be_printed(caplog):
    caplog.set_level(logging.DEBUG, "neo_async")
    bank = SmallBank(["401", "html", "before"])
    async with serving(bank), client_of(bank) as client:
        await client.create(VirtualAccount(ACCOUNT, "Asha"))
        shown = [repr(part) for part in (client, client.profile, client.limiter)]
        shown += [repr(client._keeper), repr(client._keeper._identity), caplog.text]
    for text in shown:
        assert CLIENT_SECRET not in text
        assert CLIENT_ID not in text
        assert "token-" not in text


async def test_an_api_key_is_in_no_message_about_an_answer_that_is_no_http():
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"garbage\r\n\r\n")

    async with tcp_server(handle) as address:
        bank = SmallBank()
        bank.url = f"http://{address}"
        sections = {"server": {"auth": "apikey"}, "idempotency": {"offered": False}}
        async with client_of(bank, **sections, paths={"refund_status": ""}) as client:
            no_http = r"was no HTTP: Bad(StatusLine|HttpMessage)"
            with pytest.raises(RefundUnknown, match=no_http) as caught:
                await client.refund("ACME", "REF00000001")
    assert CLIENT_ID not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("life", [-1, 0, "NaN", 1e300, None])
async def test_a_life_that_makes_no_sense_is_not_believed(life):
    bank = SmallBank()
    for _ in range(2):
        answer = {"access_token": "token-x", "expires_in": life}
        bank.token_answers.append(web.json_response(answer))
    bank._good.add("token-x")
    async with serving(bank), client_of(bank) as client:
        for _ in range(3):
            await client.accounts(ACCOUNT)
        assert len(bank.token_answers) == 1
        await asyncio.sleep(300)
        await client.accounts(ACCOUNT)
        assert not bank.token_answers


async def test_a_long_pause_before_a_token_is_told_and_not_waited_out():
    bank = SmallBank()
    bank.token_answers.append(web.Response(status=429, headers={"Retry-After": "86400"}))
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(RateLimited):
            await client.accounts(ACCOUNT)
    assert asyncio.get_running_loop().time() < 60


SECRETS = (CLIENT_ID, CLIENT_SECRET, "token-1", "h2h-header-secret")


@pytest.mark.parametrize("at", ["token", "fetch", "create", "refund", "credit"])
async def test_what_the_bank_repeats_of_the_secrets_is_taken_out(at, caplog):
    """It may repeat a request, in an error, in the result of an account or in a bad entry."""
    caplog.set_level(logging.DEBUG, "neo_async")
    told = " ".join((*SECRETS, CLIENT_SECRET.upper()))
    bank = SmallBank()
    bank.add_credits(1)
    if at == "token":
        refusal = {"error": "invalid_client", "error_description": f"cannot take {told}"}
        bank.token_answers.append(web.json_response(refusal, status=401))
    elif at == "fetch":
        refusal = {"status": "FAILURE", "errorCode": "VA0403", "message": f"cannot take {told}"}
        bank.instead["transactions/fetch"] = (403, refusal)
    elif at == "credit":
        bank.credits[0] |= {"amount": told, "narration": told}
    shown = []
    sections = {"server": {"extra_headers": {"X-Key": "h2h-header-secret"}}}
    async with serving(bank), client_of(bank, **sections) as client:
        if at == "create":
            result = {"virtualAccountNumber": ACCOUNT, "status": "FAILURE", "code": "VA1001"}
            answer = {"status": "FAILURE", "results": [{**result, "message": told}]}
            bank.instead["accounts/create"] = (200, answer)
            shown.append(repr(await client.create(VirtualAccount(ACCOUNT, "Asha"))))
        elif at == "refund":
            answer = {"status": "SUCCESS", "refundReference": "R", "refundStatus": "INITIATED"}
            bank.instead["refunds/create"] = (200, {**answer, "message": told})
            shown.append(repr(await client.refund("ACME", "REF00000001")))
        else:
            with pytest.raises(NeoError) as caught:
                await anext(client.transactions())
            shown += traceback.format_exception(caught.value)
            shown += [repr(caught.value), repr(vars(caught.value))]
    text = "".join([*shown, caplog.text])
    assert "***" in text
    for secret in SECRETS if at != "token" else SECRETS[:2]:
        assert secret not in text


async def test_an_empty_id_or_secret_is_named():
    with pytest.raises(UsageError, match="client_id is empty"):
        VirtualAccounts("", "x")
    with pytest.raises(UsageError, match="client_secret is empty"):
        VirtualAccounts("x", "")
