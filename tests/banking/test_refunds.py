"""Money goes back at most once, whatever becomes of the answers."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.banking import Refund, RefundStatus, Refusal
from neo_async.errors import (
    BankRejected,
    BrokerError,
    InvalidField,
    NotSent,
    RefundUnknown,
    TransportError,
    UsageError,
)
from tests.banking.small_bank import CLIENT, SmallBank, client_of, serving
from tests.simulation.virtual_time import VirtualTimeLoop, in_virtual_time

REFERENCE = "REF00000001"
KEY = "1f0c9a4e-7c1e-4c1e-9e0a-0c1d2e3f4a5b"


def bank_with_a_credit(*faults: str) -> SmallBank:
    bank = SmallBank(faults)
    bank.add_credits(1)
    return bank


async def test_the_banks_first_answer_comes_back_typed():
    bank = bank_with_a_credit()
    async with serving(bank), client_of(bank) as client:
        refund = await client.refund(CLIENT, REFERENCE, amount="1.5", reason="paid twice")
        key = refund.idempotency_key
        bank.refunds[key] |= {"refundStatus": "SUCCESS", "updatedAt": "2026-11-19T10:15:02+05:30"}
        later = await client.refund_status(refund)
    assert refund == Refund(
        refund_reference="RF00000001",
        reference=REFERENCE,
        amount=Decimal("1.50"),
        status=RefundStatus.INITIATED,
        status_text="INITIATED",
        message="refund initiated",
        utr="",
        updated_at=None,
        idempotency_key=key,
    )
    assert bank.bodies("create") == [
        {
            "requestId": key,
            "clientName": CLIENT,
            "transactionReference": REFERENCE,
            "amount": "1.50",
            "reason": "paid twice",
        }
    ]
    assert (later.status, later.is_final, later.idempotency_key) == ("SUCCESS", True, key)
    assert later.updated_at is not None


async def test_a_lost_answer_is_looked_up_and_not_sent_again():
    bank = bank_with_a_credit("after")
    async with serving(bank), client_of(bank) as client:
        refund = await client.refund(CLIENT, REFERENCE)
    assert bank.paths() == ["refunds/create", "refunds/status"]
    assert bank.bodies("status")[0]["originalRequestId"] == refund.idempotency_key


async def test_only_what_the_bank_has_no_trace_of_is_sent_again_under_its_key():
    bank = bank_with_a_credit("before", "", "500 after")
    async with serving(bank), client_of(bank) as client:
        await client.refund(CLIENT, REFERENCE)
    paths = bank.paths()
    assert paths == ["refunds/create", "refunds/status", "refunds/create", "refunds/status"]
    first, second = bank.bodies("create")
    assert first == second
    assert len(bank.refunds) == 1


async def test_without_idempotency_nothing_is_sent_again():
    bank = bank_with_a_credit("", "before")
    async with serving(bank), client_of(bank, idempotency={"offered": False}) as client:
        with pytest.raises(RefundUnknown) as caught:
            await client.refund(CLIENT, REFERENCE, idempotency_key=KEY)
    assert bank.paths().count("refunds/create") == 1
    assert caught.value.idempotency_key == KEY


WORDS = [
    (200, {"status": "PENDING"}),
    (200, {"status": "ACCEPTED", "errorCode": "00"}),
    (200, {"status": ["SUCCESS"]}),
    (408, {"message": "upstream timed out"}),
]


@pytest.mark.parametrize("answer", WORDS)
def test_a_word_that_is_no_refusal_is_taken_for_none(answer):
    @in_virtual_time
    async def run() -> None:
        bank = bank_with_a_credit()
        bank.instead["refunds/create"] = answer
        sections = {"paths": {"refund_status": ""}, "idempotency": {"offered": False}}
        async with serving(bank), client_of(bank, **sections) as client:
            with pytest.raises(RefundUnknown):
                await client.refund(CLIENT, REFERENCE)

    run()


async def test_a_refusal_of_the_lookup_says_nothing_of_the_refund():
    bank = bank_with_a_credit("after")
    no = {"status": "FAILURE", "errorCode": "VA0403", "message": "not in your plan"}
    bank.instead["refunds/status"] = (403, no)
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(RefundUnknown, match="not in your plan"):
            await client.refund(CLIENT, REFERENCE)
    assert bank.paths().count("refunds/create") == 1


async def test_a_refused_lookup_is_not_repeated():
    bank = bank_with_a_credit("before")
    refusal = {"status": "FAILURE", "errorCode": "VA0403", "message": "not in your plan"}
    bank.instead["refunds/status"] = (403, refusal)
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(RefundUnknown, match="not in your plan"):
            await client.refund(CLIENT, REFERENCE)
    assert bank.paths() == ["refunds/create", "refunds/status"]


async def test_a_refused_secret_is_not_tried_again_for_a_refund():
    bank = bank_with_a_credit("before")
    async with serving(bank), client_of(bank) as client:
        sending = asyncio.ensure_future(client.refund(CLIENT, REFERENCE))
        while "refunds/create" not in bank.paths():  # noqa: ASYNC110 - the bank has no event
            await asyncio.sleep(0.001)
        # Its answer is lost, and it is about to be looked for.
        bank._good.clear()
        refusals = [web.json_response({"error": "invalid_client"}, status=401) for _ in range(9)]
        bank.token_answers += refusals
        with pytest.raises(RefundUnknown, match="invalid_client"):
            await sending
    assert len(bank.token_answers) == 8


@pytest.mark.parametrize("amount", ["1,500.00", "N/A", "-5.00", {}, True, "1e99999"])
async def test_an_odd_amount_in_the_answer_leaves_the_refund_known(amount):
    bank = bank_with_a_credit()
    answer = {"status": "SUCCESS", "refundReference": "R", "refundStatus": "INITIATED"}
    bank.instead["refunds/create"] = (200, {**answer, "amount": amount, "updatedAt": "soon"})
    async with serving(bank), client_of(bank) as client:
        refund = await client.refund(CLIENT, REFERENCE)
    known = {"1,500.00": Decimal("1500.00"), "-5.00": Decimal("-5.00")}
    assert (refund.status, refund.amount) == ("INITIATED", known.get(str(amount)))
    assert refund.updated_at is None
    assert bank.paths() == ["refunds/create"]


async def test_a_key_that_cannot_be_asked_for_first_is_not_sent():
    bank = bank_with_a_credit(*["html"] * 4)
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(NotSent, match="could not be looked up first"):
            await client.refund(CLIENT, REFERENCE, idempotency_key=KEY)
    assert set(bank.paths()) == {"refunds/status"}


async def test_without_a_status_call_the_same_key_is_all_there_is():
    bank = bank_with_a_credit("after")
    async with serving(bank), client_of(bank, paths={"refund_status": ""}) as client:
        refund = await client.refund(CLIENT, REFERENCE)
        with pytest.raises(UsageError, match=r"paths\.refund_status is empty"):
            await client.refund_status(refund)
    assert len(bank.refunds) == 1
    assert bank.paths() == ["refunds/create"] * 2


async def test_a_key_of_ones_own_finds_the_refund_of_a_former_life():
    bank = bank_with_a_credit()
    async with serving(bank), client_of(bank) as client:
        first = await client.refund(CLIENT, REFERENCE, idempotency_key=KEY)
        bank.answers.clear()  # a day later
        again = await client.refund(CLIENT, REFERENCE, idempotency_key=KEY)
        told = await client.refund_status(idempotency_key=KEY)
    assert first == again == told
    assert bank.paths().count("refunds/create") == 1


async def test_refusals_say_why():
    bank = bank_with_a_credit()
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(BankRejected, match="no such credit") as caught:
            await client.refund(CLIENT, "REF99999999")
        assert caught.value.refusal == Refusal.UNKNOWN_TRANSACTION
        assert caught.value.code == "VA3001"
        with pytest.raises(BankRejected, match="no such refund"):
            await client.refund_status("RF99999999")


async def test_a_refund_is_followed_to_its_end():
    bank = bank_with_a_credit()
    async with serving(bank), client_of(bank) as client:
        refund = await client.refund(CLIENT, REFERENCE)

        async def work() -> None:
            await asyncio.sleep(12)
            bank.refunds[refund.idempotency_key]["refundStatus"] = "FAILED"

        working = asyncio.create_task(work())
        settled = await client.settled_refund(refund, timeout=60)
        await working
        assert settled.status is RefundStatus.FAILED
        with pytest.raises(TimeoutError):
            await client.settled_refund(refund, timeout=3)


async def test_a_word_that_nobody_knows_is_never_final():
    bank = bank_with_a_credit()
    async with serving(bank), client_of(bank) as client:
        refund = await client.refund(CLIENT, REFERENCE)
        bank.refunds[refund.idempotency_key]["refundStatus"] = "PONDERING"
        later = await client.refund_status(refund)
    assert (later.status, later.status_text, later.is_final) == ("UNKNOWN", "PONDERING", False)


BAD = [
    ({"client_name": ""}, "client_name"),
    ({"client_name": "x" * 41}, "client_name"),
    ({"reference": " "}, "reference"),
    ({"reference": "x" * 65}, "reference"),
    ({"amount": 1.5}, "a float is not exact"),
    ({"amount": "-1"}, "amount"),
    ({"amount": "1.005"}, "amount"),
    ({"amount": "0"}, "amount='0': must be above 0"),
    ({"reason": "x" * 101}, "reason"),
    ({"ifsc_code": "ICIC1000004"}, "ifsc_code='ICIC1000004': must be four letters, 0 and six"),
    ({"account": "12"}, "account='12'"),
    ({"ifsc_code": "ICIC0000004"}, r"the profile has no request\.refund\.ifsc"),
    ({"idempotency_key": "row-17"}, "idempotency_key='row-17': must be of the form"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
async def test_bad_input_is_named_before_anything_is_sent(fields, message):
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    async with client_of(bank) as client:
        with pytest.raises(InvalidField, match=message):
            await client.refund(**{"client_name": CLIENT, "reference": REFERENCE, **fields})
        with pytest.raises(UsageError, match="needs a refund"):
            await client.refund_status()


FAULTS = ("before", "after", "500 before", "500 after", "401", "429", "html", "")


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(FAULTS), max_size=14),
    st.sampled_from(["", KEY]),
    st.booleans(),
    st.booleans(),
)
def test_at_most_one_refund_and_never_a_wrong_word_about_it(faults, key, has_keys, has_status):
    """What is returned is there; what is said not to have happened did not happen."""

    async def run() -> None:
        bank = bank_with_a_credit(*faults)
        sections = {
            "idempotency": {"offered": has_keys},
            "paths": {} if has_status else {"refund_status": ""},
        }
        async with serving(bank), client_of(bank, **sections) as client:
            try:
                refund = await client.refund(CLIENT, REFERENCE, idempotency_key=key)
            except RefundUnknown:
                assert len(bank.refunds) <= 1
            except (BrokerError, TransportError):
                assert not bank.refunds
            else:
                assert list(bank.refunds) == [refund.idempotency_key]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


async def test_a_bank_that_is_not_there_has_got_nothing():
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    async with client_of(bank) as client:
        with pytest.raises(NotSent):
            await client.refund(CLIENT, REFERENCE)
