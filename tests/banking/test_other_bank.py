"""Nothing of a bank's format is hard-wired: all of it works in a format that shares no name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.banking import (
    AccountChange,
    AccountStatus,
    Outcome,
    RefundStatus,
    Refusal,
    VirtualAccount,
    VirtualAccounts,
)
from neo_async.errors import BankRejected, InvalidField
from tests.banking.other_bank import KEY, OtherBank
from tests.banking.small_bank import serving
from tests.banking.test_transactions import in_time


@contextlib.asynccontextmanager
async def talking_to(bank: OtherBank) -> AsyncIterator[VirtualAccounts]:
    async with serving(bank), VirtualAccounts(KEY, "unused", profile=bank.profile) as client:
        yield client
    assert bank.problems == []


async def test_accounts():
    bank = OtherBank()
    async with talking_to(bank) as client:
        results = await client.create(
            [
                VirtualAccount(
                    f"K00000000{place}",
                    f"Customer {place}",
                    valid_from=date(2026, 11, 1),
                    min_amount="15.5",
                )
                for place in range(3)
            ]
        )
        (changed,) = await client.modify(AccountChange("K000000001", status=AccountStatus.BLOCKED))
        (deleted, unknown) = await client.delete(["K000000002", "K000000009"])
        states = await client.accounts(["K000000000", "K000000001", "K000000002", "K000000009"])
    assert [result.outcome for result in results] == [Outcome.DONE] * 3
    method, path, body = bank.requests[0]
    assert (method, path) == ("POST", "/kvan/vaCreate")
    assert body["Hdr"] == {"MsgId": body["Hdr"]["MsgId"], "Cust": "ACME", "Ver": "2"}
    row = {"Holder": {"Name": "Customer 0"}, "From": "01-11-2026", "Min": 1550, "Type": "V"}
    assert body["Body"]["Acct"] == "9876543210"
    assert body["Body"]["VAList"][0] == {"VA": "K000000000", **row}
    assert len(body["Body"]["VAList"]) == 2
    assert [method for method, path, _ in bank.requests if path == "/kvan/vaChange"] == ["PUT"]
    assert changed.is_done
    assert deleted.is_done
    assert (unknown.refusal, unknown.code) == (Refusal.UNKNOWN_ACCOUNT, "D2")
    assert [state.status for state in states] == ["ACTIVE", "BLOCKED", "DELETED"]
    assert states[0].min_amount == Decimal("15.50")
    assert states[0].valid_from == date(2026, 11, 1)


async def test_credits_and_an_acknowledgement_that_travels_with_the_next_request():
    bank = OtherBank(waiting=5, batch=2)
    async with talking_to(bank) as client:
        credits_ = [credit async for credit in client.transactions()]
    assert [credit.reference for credit in credits_] == ["T1", "T2", "T3", "T4", "T5"]
    first = credits_[0]
    assert (first.amount, first.mode, first.account) == (Decimal("1.01"), "NEFT", "K000000001")
    assert (first.remitter_account, first.utr, first.sequence) == ("123456789012", "", 1)
    assert credits_[1].mode == "CASH"
    assert first.credited_at is not None
    assert first.credited_at.isoformat() == "2026-11-19T10:15:02+05:30"
    assert [body["Body"].get("Got") for _, _, body in bank.requests] == [
        None,
        {"Id": "0", "N": 2, "St": "GOT"},
        {"Id": "2", "N": 2, "St": "GOT"},
        {"Id": "4", "N": 1, "St": "GOT"},
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(1, 4), st.lists(st.integers(0, 6), max_size=4))
def test_lost_answers_cost_nothing_there_either(count, size, losses):
    async def run() -> None:
        bank = OtherBank(waiting=count, batch=size)
        seen = []
        async with talking_to(bank) as client:
            stream = client.transactions()
            for loss in losses:
                bank.lost_answers = min(loss, 3)
                async for credit in stream:
                    seen.append(credit.reference)
                    break
            seen += [credit.reference async for credit in stream]
        assert seen == [f"T{number}" for number in range(1, count + 1)]
        assert bank.acknowledged == count

    in_time(run())


async def test_refunds():
    bank = OtherBank(waiting=1)
    async with talking_to(bank) as client:
        refund = await client.refund(
            "ACME", "T1", amount="1.01", account="000401234567", ifsc_code="ICIC0000004"
        )
        later = await client.refund_status(refund)
        bank.lost_answers = 1
        looked_up = await client.refund("ACME", "T1", amount=1)
        with pytest.raises(BankRejected, match="no such credit") as caught:
            await client.refund("ACME", "T9", amount=1)
        with pytest.raises(InvalidField, match=r"the profile has no request\.refund\.reason"):
            await client.refund("ACME", "T1", reason="why not")
    assert (refund.status, refund.amount) == (RefundStatus.INITIATED, Decimal("1.01"))
    assert later.status is RefundStatus.SUCCESS
    assert later.updated_at is not None
    assert looked_up.refund_reference == "R2"
    assert len(bank.refunds) == 2
    assert caught.value.refusal == Refusal.UNKNOWN_TRANSACTION
    assert bank.requests[0][2] == {
        "MsgId": refund.idempotency_key,
        "Cust": "ACME",
        "TxnRef": "T1",
        "Amt": 101,
        "To": {"Acct": "000401234567", "Ifsc": "ICIC0000004"},
    }
    assert bank.requests[1] == ("GET", "/kvan/RefundEnq", {"rid": "R1"})


async def test_a_lost_answer_is_looked_up_for_this_bank_knows_no_keys():
    bank = OtherBank()
    async with talking_to(bank) as client:
        bank.lost_answers = 1
        (created,) = await client.create(VirtualAccount("K000000001", "A", min_amount=1))
    assert created.outcome is Outcome.DONE
    assert [path for _, path, _ in bank.requests] == ["/kvan/vaCreate", "/kvan/vaShow"]


async def test_rules_are_the_banks_own():
    bank = OtherBank()
    async with talking_to(bank) as client:
        with pytest.raises(InvalidField, match=r"must be of the form K\[0-9\]\{9\}"):
            await client.create(VirtualAccount("ACME00000001", "A"))
        with pytest.raises(InvalidField, match=r"no request\.create\.accounts\.mobile") as caught:
            await client.create(VirtualAccount("K000000001", "A", mobile="+919876543210"))
    assert caught.value.field == "accounts[0].mobile"


async def test_the_api_key_is_in_no_message():
    bank = OtherBank()
    async with talking_to(bank) as client:
        bank.lost_answers = 9
        with pytest.raises(Exception, match="vaShow") as caught:
            await client.accounts("K000000001")
    assert KEY not in repr(client)
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in repr(error)
        error = error.__cause__
