from __future__ import annotations

from typing import Any

import pytest

from neo_async.errors import UsageError
from tests.exchange.bank.teller import NUMBER, REFUND, STATUS, Teller, at_the_bank, external

REQUEST = "1f0c9a4e-7c1e-4c1e-9e0a-0c1d2e3f4a5b"


async def paid(teller: Teller, amount: str = "1500.00", **options: Any) -> str:
    await teller.open()
    return teller.exchange.bank.credit(NUMBER, amount, **options)


async def test_a_refund_begins_and_is_moved_on() -> None:
    async with at_the_bank() as teller:
        reference = await paid(teller)
        fields = {"transactionReference": reference, "reason": "duplicate payment"}
        first = await teller.told(REFUND, requestId=REQUEST, **fields)
        assert first == {
            "status": "SUCCESS",
            "requestId": REQUEST,
            "refundReference": "RF0000000001",
            "transactionReference": reference,
            "amount": "1500.00",
            "refundStatus": "INITIATED",
            "message": "refund initiated",
            "utr": "",
            "updatedAt": "2026-11-23T10:00:00+05:30",
        }
        teller.clock.now += 60
        for status in ("PROCESSING", "SUCCESS"):
            moved = await teller.admin(
                "bank/refund", refundReference="RF0000000001", refundStatus=status
            )
            assert moved.json()["refundStatus"] == status
        by_reference = await teller.told(STATUS, refundReference="RF0000000001")
        by_request = await teller.told(STATUS, originalRequestId=REQUEST)
        for told in (by_reference, by_request):
            assert told["refundStatus"] == "SUCCESS"
            assert told["utr"]
            assert told["updatedAt"] == "2026-11-23T10:01:00+05:30"


async def test_parts_are_refunded_up_to_the_credit() -> None:
    async with at_the_bank() as teller:
        reference = await paid(teller, "10.00")
        bank = teller.exchange.bank
        part = await teller.told(REFUND, transactionReference=reference, amount="4.00")
        over = {"transactionReference": reference, "amount": "6.01"}
        assert await teller.refused(REFUND, **over) == (400, "VA3002")
        rest = await teller.told(REFUND, transactionReference=reference)
        assert rest["amount"] == "6.00"
        assert await teller.refused(REFUND, transactionReference=reference) == (409, "VA3003")
        bank.move_refund(part["refundReference"], "FAILED")
        again = await teller.told(REFUND, transactionReference=reference)
        assert again["amount"] == "4.00"


async def test_a_payment_without_an_account_is_rejected_and_stays_refundable() -> None:
    async with at_the_bank() as teller:
        reference = await paid(teller, remitter_account="")
        for _ in range(2):
            refund = await teller.told(REFUND, transactionReference=reference)
            assert refund["refundStatus"] == "REJECTED"


async def test_what_is_unknown_or_anothers_is_not_refunded() -> None:
    async with at_the_bank() as teller:
        reference = await paid(teller)
        refund = await teller.told(REFUND, requestId=REQUEST, transactionReference=reference)
        other = external(teller)
        await other.log_in()
        assert await other.refused(REFUND, transactionReference=reference) == (403, "VA0403")
        for known in (
            {"refundReference": refund["refundReference"]},
            {"originalRequestId": REQUEST},
        ):
            assert await other.refused(STATUS, **known) == (404, "VA3001")
        bumped = reference[:-1] + str((int(reference[-1]) + 1) % 10)
        for unknown in ("", "X", bumped, "X" + reference[1:], "9" * 4300):
            assert await teller.refused(REFUND, transactionReference=unknown) == (404, "VA3001")


@pytest.mark.parametrize(
    ("service", "fields", "field"),
    [
        (REFUND, {"amount": "0.00"}, "amount"),
        (REFUND, {"amount": 5}, "amount"),
        (REFUND, {"transactionReference": 7}, "transactionReference"),
        (STATUS, {}, "refundReference"),
        (STATUS, {"refundReference": "RF1", "originalRequestId": REQUEST}, "refundReference"),
    ],
)
async def test_fields_that_break_a_rule_are_named(service: str, fields: Any, field: str) -> None:
    async with at_the_bank() as teller:
        reference = {"transactionReference": await paid(teller)} if service == REFUND else {}
        refused = await teller.call(service, **(reference | fields))
        assert (refused.status, refused.json()["errorCode"]) == (400, "VA1001")
        assert refused.json()["field"] == field


async def test_a_refund_cannot_be_moved_everywhere() -> None:
    async with at_the_bank() as teller:
        bank = teller.exchange.bank
        refund = await teller.told(REFUND, transactionReference=await paid(teller))
        reference = refund["refundReference"]
        for status, text in (("INITIATED", "cannot go back"), ("PAID", "must be among INITIATED")):
            with pytest.raises(UsageError, match=text):
                bank.move_refund(reference, status)
        bank.move_refund(reference, "FAILED")
        with pytest.raises(UsageError, match="is FAILED, which is final"):
            bank.move_refund(reference, "SUCCESS")
        refused = await teller.admin("bank/refund", refundReference="RF9", refundStatus="SUCCESS")
        assert (refused.status, refused.json()) == (
            400,
            {"error": "VA3001: refund 'RF9' is unknown"},
        )
