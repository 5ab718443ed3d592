from __future__ import annotations

import re
from typing import Any

import pytest

from neo_async.errors import UsageError
from neo_async.exchange import Faults
from neo_async.exchange.faults.settings import ResponseFault
from tests.exchange.bank.teller import (
    ACK,
    DELETE,
    FETCH,
    MODIFY,
    NUMBER,
    at_the_bank,
    external,
)


async def test_a_credit_says_who_paid_what_and_when() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        reference = teller.exchange.bank.credit(
            NUMBER,
            "1500.05",
            mode="IMPS",
            utr="632411112222",
            remitter_name="RAVI K",
            remitter_account="000401234567",
            remitter_ifsc="ICIC0000004",
            narration="INV 77",
        )
        batch = await teller.told(FETCH)
        assert batch["transactions"] == [
            {
                "sequence": 1,
                "transactionReference": reference,
                "virtualAccountNumber": NUMBER,
                "physicalAccount": teller.physical,
                "amount": "1500.05",
                "currency": "INR",
                "mode": "IMPS",
                "utr": "632411112222",
                "remitterName": "RAVI K",
                "remitterAccount": "000401234567",
                "remitterIfsc": "ICIC0000004",
                "narration": "INV 77",
                "creditedAt": "2026-11-23T10:00:00+05:30",
            }
        ]
        assert (batch["batchId"], batch["deliveryCount"]) == ("B0000000001", 1)
        assert (batch["count"], batch["hasMore"]) == (1, False)


async def test_a_batch_comes_again_as_it_was_until_it_is_acknowledged() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        teller.exchange.bank.credit(NUMBER, "1.00", count=3)
        first = await teller.told(FETCH)
        teller.exchange.bank.credit(NUMBER, "2.00")
        again = await teller.told(FETCH)
        for name in ("batchId", "count", "transactions", "cursor"):
            assert again[name] == first[name]
        assert (first["deliveryCount"], again["deliveryCount"]) == (1, 2)
        assert (first["hasMore"], again["hasMore"]) == (False, True)
        receipt = {"batchId": first["batchId"], "count": 3, "status": "RECEIVED"}
        assert (await teller.told(ACK, **receipt))["alreadyAcknowledged"] is False
        assert (await teller.told(ACK, **receipt))["alreadyAcknowledged"] is True
        (row,) = (await teller.told(FETCH))["transactions"]
        assert (row["sequence"], row["amount"]) == (4, "2.00")


async def test_all_credits_come_once_in_batches_of_100() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        await teller.open("ACME00000002")
        teller.exchange.bank.credit(NUMBER, "1.00", count=150)
        teller.exchange.bank.credit("ACME00000002", "2.00", mode="UPI", count=101)
        batch = await teller.told(FETCH)
        assert (batch["count"], batch["hasMore"]) == (100, True)
        rows = await teller.drain()
        assert [row["sequence"] for row in rows] == list(range(1, 252))
        assert len({row["transactionReference"] for row in rows}) == 251
        assert [row["amount"] for row in rows] == ["1.00"] * 150 + ["2.00"] * 101
        assert all(re.fullmatch("([A-Z]{4}0[A-Z0-9]{6})?", row["remitterIfsc"]) for row in rows)
        nothing = await teller.told(FETCH)
        assert (nothing["batchId"], nothing["count"], nothing["transactions"]) == (None, 0, [])


async def test_physical_accounts_are_delivered_apart() -> None:
    async with at_the_bank() as teller:
        second = teller.client.physical_accounts[1]
        await teller.open()
        await teller.open("ACME00000002", physicalAccount=None)
        await teller.told(
            "accounts/create",
            physicalAccount=second,
            accounts=[{"virtualAccountNumber": "ACME00000003", "name": "x"}],
        )
        teller.exchange.bank.credit(NUMBER, "1.00")
        teller.exchange.bank.credit("ACME00000003", "3.00")
        (row,) = (await teller.told(FETCH, physicalAccount=second))["transactions"]
        assert (row["sequence"], row["amount"]) == (1, "3.00")
        assert len(await teller.drain()) == 1


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"batchId": "B0000000099"}, (404, "VA2002")),
        ({"count": 2}, (400, "VA2003")),
        ({"count": "3"}, (400, "VA1001")),
        ({"status": "LOST"}, (400, "VA1001")),
    ],
)
async def test_a_receipt_that_is_wrong_leaves_the_batch_outstanding(
    changes: Any, refusal: Any
) -> None:
    async with at_the_bank() as teller:
        await teller.open()
        teller.exchange.bank.credit(NUMBER, "1.00", count=3)
        batch = await teller.told(FETCH)
        receipt = {"batchId": batch["batchId"], "count": 3, "status": "RECEIVED"}
        assert await teller.refused(ACK, **(receipt | changes)) == refusal
        assert (await teller.told(FETCH))["batchId"] == batch["batchId"]


async def test_batches_of_others_are_unknown() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        teller.exchange.bank.credit(NUMBER, "1.00")
        batch = await teller.told(FETCH)
        other = external(teller)
        await other.log_in()
        receipt = {"batchId": batch["batchId"], "count": 1, "status": "RECEIVED"}
        assert await other.refused(ACK, **receipt) == (404, "VA2002")
        assert (await other.told(FETCH))["count"] == 0


async def test_a_cursor_replays_and_has_no_effect() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        teller.exchange.bank.credit(NUMBER, "1.00", count=100)
        cursor = (await teller.told(FETCH))["cursor"]
        await teller.drain()
        teller.exchange.bank.credit(NUMBER, "2.00", count=120)
        replay = await teller.told(FETCH, cursor=cursor)
        assert (replay["replay"], replay["batchId"], replay["count"]) == (True, None, 100)
        assert replay["hasMore"] is True
        rest = await teller.told(FETCH, cursor=replay["cursor"])
        assert [row["sequence"] for row in rest["transactions"]] == list(range(201, 221))
        end = await teller.told(FETCH, cursor=rest["cursor"])
        assert (end["count"], end["hasMore"], end["cursor"]) == (0, False, rest["cursor"])
        assert len(await teller.drain()) == 120
        for wrong in ("", "rubbish", "c2VxOg==", "c2VxOi0x"):
            assert await teller.refused(FETCH, cursor=wrong) == (400, "VA2004")


# --- paying in ------------------------------------------------------------------------------------


async def test_accounts_take_only_what_they_are_for() -> None:
    async with at_the_bank() as teller:
        bank = teller.exchange.bank
        terms = {"minAmount": "10.00", "maxAmount": "20.00", "validTo": "2026-11-23"}
        await teller.open(validFrom="2026-11-23", **terms)
        await teller.open("ACME00000002", validFrom="2026-11-24")
        for amount in ("9.99", "20.01"):
            with pytest.raises(UsageError, match=r"takes at least 10\.00 and at most 20\.00"):
                bank.credit(NUMBER, amount)
        with pytest.raises(UsageError, match="valid from 2026-11-24"):
            bank.credit("ACME00000002", "10.00")
        with pytest.raises(UsageError, match="unknown"):
            bank.credit("ACME00000009", "10.00")
        bank.credit(NUMBER, "10.00")
        bank.credit(NUMBER, "20.00")
        teller.clock.now += 14 * 3600
        with pytest.raises(UsageError, match="valid until 2026-11-23"):
            bank.credit(NUMBER, "10.00")
        bank.credit("ACME00000002", "10.00")
        await teller.log_in()
        await teller.results(MODIFY, {"virtualAccountNumber": "ACME00000002", "status": "BLOCKED"})
        with pytest.raises(UsageError, match="blocked"):
            bank.credit("ACME00000002", "10.00")
        await teller.results(DELETE, {"virtualAccountNumber": "ACME00000002"})
        with pytest.raises(UsageError, match="deleted"):
            bank.credit("ACME00000002", "10.00")
        assert len(await teller.drain()) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "0.00"},
        {"amount": "5"},
        {"amount": 5},
        {"count": 0},
        {"mode": ""},
        {"remitterIfsc": "icic"},
        {"purpose": "x"},
        {"virtualAccountNumber": "ACME00000009"},
    ],
)
async def test_the_side_entrance_refuses_with_a_reason(wrong: Any) -> None:
    async with at_the_bank() as teller:
        await teller.open()
        fields = {"virtualAccountNumber": NUMBER, "amount": "1.00"} | wrong
        refused = await teller.admin("bank/credit", **fields)
        assert refused.status == 400
        assert refused.json()["error"].startswith("VA1")
        assert (await teller.told(FETCH))["count"] == 0


async def test_the_side_entrance_pays_in() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        paid = await teller.admin(
            "bank/credit", virtualAccountNumber=NUMBER, amount="7.50", mode="SWIFT", count=3
        )
        rows = await teller.drain()
        assert paid.json() == {
            "transactionReference": rows[0]["transactionReference"],
            "firstSequence": 1,
            "lastSequence": 3,
        }
        assert {row["mode"] for row in rows} == {"SWIFT"}


async def test_the_same_seed_makes_up_the_same() -> None:
    async def drained(seed: int) -> list[Any]:
        async with at_the_bank(seed=seed) as teller:
            await teller.open()
            teller.exchange.bank.credit(NUMBER, "1.00", count=5)
            rows = await teller.drain()
            return [{**row, "physicalAccount": ""} for row in rows]

    assert await drained(7) == await drained(7) != await drained(8)


async def test_a_reset_closes_the_books_and_keeps_tokens() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        teller.exchange.bank.credit(NUMBER, "1.00")
        await teller.admin("reset")
        assert (await teller.told(FETCH))["count"] == 0
        await teller.open()


# --- bad days -------------------------------------------------------------------------------------


async def test_the_batch_before_can_come_again() -> None:
    async with at_the_bank() as teller:
        await teller.open()
        teller.exchange.bank.credit(NUMBER, "1.00", count=150)
        rows = await teller.drain()
        teller.exchange.faults.set(Faults(bank_repeat=1))
        again = await teller.told(FETCH)
        assert again["transactions"] == rows[100:]
        receipt = {"batchId": again["batchId"], "count": 50, "status": "RECEIVED"}
        assert (await teller.told(ACK, **receipt))["alreadyAcknowledged"] is True
        assert teller.exchange.faults.injected == {"bank_repeat": 1}


async def test_tokens_can_expire_at_any_call() -> None:
    async with at_the_bank(faults=Faults(bank_expire=1)) as teller:
        assert await teller.refused(FETCH) == (401, "VA0401")
        teller.exchange.faults.set(Faults())
        assert await teller.refused(FETCH) == (401, "VA0401")
        await teller.log_in()
        await teller.told(FETCH)


@pytest.mark.parametrize(
    ("harm", "accepted"), [(ResponseFault.ERROR_BEFORE, False), (ResponseFault.ERROR_AFTER, True)]
)
async def test_faults_of_the_exchange_hit_the_bank_when_they_are_told_to(
    harm: ResponseFault, accepted: bool
) -> None:
    async with at_the_bank() as teller:
        await teller.open()
        teller.exchange.bank.credit(NUMBER, "1.00")
        batch = await teller.told(FETCH)
        receipt = {"batchId": batch["batchId"], "count": 1, "status": "RECEIVED"}
        teller.exchange.faults.set(Faults(**{harm.value: 1.0}))
        await teller.told(FETCH)  # orders and reads are the broker's
        teller.exchange.faults.set(Faults(**{harm.value: 1.0}, calls=("bank",)))
        codes = set()
        for _ in range(40):
            failed = await teller.call(ACK, **receipt)
            assert failed.status in (500, 502, 503, 504)
            if failed.body[:1] == b"{":
                codes.add(failed.json()["errorCode"])
        assert codes == {"VA0500", "VA0503"}
        teller.exchange.faults.set(Faults(throttle=1, calls=("bank",)))
        assert await teller.refused(FETCH) == (429, "VA0429")
        teller.exchange.faults.set(Faults())
        assert ((await teller.told(FETCH))["count"] == 0) is accepted
