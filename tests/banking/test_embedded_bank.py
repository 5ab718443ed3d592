"""Against the exchange's own bank, which nobody wrote for this client: the whole way, on good days
and on bad ones."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from neo_async.banking import (
    AccountChange,
    AccountStatus,
    BankingProfile,
    Outcome,
    RefundStatus,
    Refusal,
    VirtualAccount,
    VirtualAccounts,
)
from neo_async.errors import BankRejected, NeoError, RateLimited, RefundUnknown
from neo_async.exchange import Exchange
from neo_async.exchange.bank.settings import BankSettings
from neo_async.exchange.faults.settings import Faults
from tests.exchange_settings import exchange_with
from tests.simulation.virtual_time import in_virtual_time, now

FAST = BankSettings(requests_per_second=None, requests_per_day=None)


def exchange_of(**settings: Any) -> Exchange:
    return exchange_with(seed=3, market_makers=False, clock=now, **{"bank": FAST, **settings})


def client_of(exchange: Exchange, *, store: Path | None = None, **sections: Any) -> VirtualAccounts:
    customer = exchange.bank.client
    profile = BankingProfile.of(
        {
            "server": {"base_url": exchange.bank_url},
            "plan": {"requests_per_second": 1000, "requests_per_day": 0},
            **sections,
        }
    )
    return VirtualAccounts(
        customer.client_id,
        customer.client_secret,
        profile=profile,
        client_name=customer.name,
        physical_account=customer.physical_accounts[0],
        store=store,
        clock=now,
        monotonic=now,
    )


async def test_the_whole_way():
    accounts = [
        VirtualAccount(
            "ACME00000001",
            "Asha Rao",
            valid_to=date(2027, 10, 31),
            min_amount=1,
            max_amount="500000",
            mobile="+919876543210",
            email="asha@example.com",
            description="invoice 77",
        ),
        VirtualAccount("ACME00000002", "Ravi"),
    ]
    async with exchange_of() as exchange, client_of(exchange) as client:
        assert all(result.is_done for result in await client.create(accounts))
        again = await client.create([accounts[0], VirtualAccount("ACME00000002", "Somebody else")])
        (blocked,) = await client.modify(
            AccountChange("ACME00000002", status=AccountStatus.BLOCKED, description="x")
        )
        (state, other) = await client.accounts(["ACME00000001", "ACME00000002"])
        exchange.bank.credit("ACME00000001", "1500.00", narration="INV 77", count=230)
        credits_ = [credit async for credit in client.transactions()]
        refund = await client.refund("ACME", credits_[0].reference, amount="500")
        exchange.bank.move_refund(refund.refund_reference, "SUCCESS")
        settled = await client.settled_refund(refund, timeout=10)
        with pytest.raises(BankRejected, match=r"only 1000\.00 is left") as caught:
            await client.refund("ACME", credits_[0].reference, amount="1000.01")
        deleted, missing = await client.delete(["ACME00000002", "ACME00000003"])
    assert [result.outcome for result in again] == [Outcome.DONE, Outcome.REFUSED]
    assert again[1].refusal is Refusal.DUPLICATE
    assert blocked.is_done
    assert (state.status, state.email) == (AccountStatus.ACTIVE, "asha@example.com")
    assert (other.status, other.description) == (AccountStatus.BLOCKED, "x")
    assert [credit.sequence for credit in credits_] == list(range(1, 231))
    assert len({credit.reference for credit in credits_}) == 230
    assert str(sum(credit.amount for credit in credits_)) == "345000.00"
    assert (refund.status, settled.status) == (RefundStatus.INITIATED, RefundStatus.SUCCESS)
    assert settled.utr
    assert caught.value.refusal == Refusal.OVER_REFUND
    assert (deleted.is_done, missing.refusal) == (True, Refusal.UNKNOWN_ACCOUNT)


async def test_the_plan_is_kept_so_that_the_bank_never_has_to_refuse():
    plan = {"requests_per_second": 5, "requests_per_day": 40}
    settings = BankSettings(requests_per_second=5, requests_per_day=40)
    async with exchange_of(bank=settings) as exchange, client_of(exchange, plan=plan) as client:
        for _ in range(39):  # and one for the token
            await client.accounts("ACME00000001")
        with pytest.raises(RateLimited, match="40 requests of today are used up") as caught:
            await client.accounts("ACME00000001")
        assert client.limiter.pauses == 0
        assert caught.value.retry_after is not None


async def test_an_api_key_will_do():
    async with (
        exchange_of() as exchange,
        client_of(exchange, server={"base_url": exchange.bank_url, "auth": "apikey"}) as client,
    ):
        (result,) = await client.create(VirtualAccount("ACME00000001", "Asha"))
    assert result.is_done


async def test_somebody_elses_account_is_forbidden():
    async with exchange_of() as exchange, client_of(exchange) as client:
        theirs = exchange.bank.clients[1].physical_accounts[0]
        with pytest.raises(BankRejected, match="not yours") as caught:
            await client.create(VirtualAccount("ACME00000001", "A"), physical_account=theirs)
        with pytest.raises(BankRejected, match="not yours"):
            await anext(client.transactions(physical_account=theirs))
    assert caught.value.refusal == Refusal.FORBIDDEN


BAD_DAY = Faults(
    calls=("bank",),
    lose_before=0.05,
    lose_after=0.05,
    throttle=0.03,
    error_before=0.04,
    error_after=0.04,
    malformed=0.04,
    truncated=0.04,
    drip=0.02,
    bank_expire=0.1,
    bank_repeat=0.1,
)


@pytest.mark.parametrize("seed", range(6))
def test_on_a_bad_day_all_of_it_happens_once(seed, tmp_path):
    @in_virtual_time
    async def run() -> None:
        faults = Faults(**{**_fields(BAD_DAY), "seed": seed})
        async with exchange_of(faults=faults) as exchange:
            async with client_of(exchange, store=tmp_path / "credits.db") as client:
                results = await client.create(
                    [VirtualAccount(f"ACME{number:08}", "A") for number in range(250)]
                )
                assert {result.outcome for result in results} <= {Outcome.DONE, Outcome.UNKNOWN}
                first = exchange.bank.credit("ACME00000000", "10.00", count=950)
            taken: list[int | None] = []
            for _ in range(40):  # lives of a consumer that every failure ends
                try:
                    async with client_of(exchange, store=tmp_path / "credits.db") as client:
                        async for credit in client.transactions():
                            taken += [] if credit.may_be_repeated else [credit.sequence]
                        break
                except NeoError:
                    continue
            assert taken == list(range(1, 951))
            async with client_of(exchange) as client:
                left = 10
                for _ in range(10):
                    try:
                        await client.refund("ACME", first, amount=1)
                        left -= 1
                    except RefundUnknown as unknown:
                        exchange.faults.set(Faults())
                        with_key = await client.refund_status(
                            idempotency_key=unknown.idempotency_key
                        )
                        left -= 1
                        assert with_key.amount == 1
                exchange.faults.set(Faults())
                with pytest.raises(BankRejected) as caught:
                    await client.refund("ACME", first, amount=1)
            assert caught.value.refusal == Refusal.OVER_REFUND
            assert left == 0

    run()


def _fields(faults: Faults) -> dict[str, Any]:
    return {name: getattr(faults, name) for name in faults.__struct_fields__}
