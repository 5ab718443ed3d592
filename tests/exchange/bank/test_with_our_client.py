"""The package's client and this bank, each written from the contract, on a bad day."""

from __future__ import annotations

import asyncio
import uuid
from decimal import Decimal
from pathlib import Path

from neo_async.banking import (
    BankingProfile,
    Refund,
    RefundStatus,
    VirtualAccount,
    VirtualAccounts,
)
from neo_async.errors import BrokerError, RefundUnknown, TransportError
from neo_async.exchange import Faults, Uniform
from neo_async.exchange.faults.settings import ResponseFault
from tests.exchange.bank.teller import NUMBER, Teller, at_the_bank
from tests.simulation.virtual_time import now

BAD_DAY = Faults(
    **{harm.value: 0.03 for harm in ResponseFault},
    calls=("bank",),
    delay_before=0.1,
    delay_after=0.1,
    delay_seconds=Uniform(low=0, high=2),
    hang_seconds=5,
    drip_seconds=1,
    close_idle=0.1,
    close_crossing=0.1,
    bank_expire=0.05,
    bank_repeat=0.1,
)


def client_of(teller: Teller, store: Path | None = None) -> VirtualAccounts:
    profile = BankingProfile.of(
        {
            "server": {"base_url": teller.exchange.bank_url},
            "plan": {"requests_per_second": 1000, "requests_per_day": 0},
        }
    )
    return VirtualAccounts(
        teller.client.client_id,
        teller.client.client_secret,
        profile=profile,
        client_name=teller.client.name,
        physical_account=teller.physical,
        store=store,
        clock=now,
        monotonic=asyncio.get_running_loop().time,
    )


async def test_every_credit_comes_once_whatever_goes_wrong(tmp_path: Path) -> None:
    async with at_the_bank(clock=now) as teller, client_of(teller, tmp_path / "credits") as bank:
        await bank.create([VirtualAccount(NUMBER, "Asha Rao")])
        teller.exchange.bank.credit(NUMBER, "1.00", count=2_050)
        teller.exchange.faults.set(BAD_DAY)
        sequences: list[int] = []
        async for credit in bank.transactions(poll=1):
            sequences.append(credit.sequence)
            if len(sequences) == 2_050:
                break
        assert sequences == list(range(1, 2_051))
        assert {"bank_repeat", "bank_expire"} <= teller.exchange.faults.injected.keys()
        assert len(set(ResponseFault) & teller.exchange.faults.injected.keys()) >= 5


async def refund_one_rupee(bank: VirtualAccounts, client: str, reference: str) -> Refund:
    """Under one key, until the bank has it."""
    key = str(uuid.uuid4())
    while True:
        try:
            return await bank.refund(client, reference, amount="1.00", idempotency_key=key)
        except (TransportError, BrokerError, RefundUnknown):
            await asyncio.sleep(1)


async def test_every_refund_goes_out_once_whatever_goes_wrong() -> None:
    async with at_the_bank(clock=now) as teller, client_of(teller) as bank:
        await bank.create([VirtualAccount(NUMBER, "Asha Rao")])
        reference = teller.exchange.bank.credit(NUMBER, "100.00")
        teller.exchange.faults.set(BAD_DAY)
        refunds = [await refund_one_rupee(bank, teller.client.name, reference) for _ in range(60)]
        assert all(refund.status is RefundStatus.INITIATED for refund in refunds)
        assert len({refund.refund_reference for refund in refunds}) == 60
        teller.exchange.faults.set(Faults())
        rest = await bank.refund(teller.client.name, reference)
        assert rest.amount == Decimal("40.00")
