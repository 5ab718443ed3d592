"""Virtual accounts: collect payments under numbers of your own, and send one back. Runs against the
bank of an exchange of its own: no account needed.

python examples/virtual_accounts.py
"""

import tempfile
from pathlib import Path

import neo_async
from neo_async.banking import BankingProfile, VirtualAccount, VirtualAccounts
from neo_async.exchange import Exchange


async def main(store: Path) -> None:
    async with Exchange(seed=7) as exchange:
        customer = exchange.bank.client
        # At your bank: profile="bank.toml", with its paths and names in it.
        profile = BankingProfile.of({"server": {"base_url": exchange.bank_url}})
        async with VirtualAccounts(
            customer.client_id,
            customer.client_secret,
            profile=profile,
            client_name=customer.name,
            physical_account=customer.physical_accounts[0],
            store=store,  # with it, each credit comes once
        ) as bank:
            accounts = [
                VirtualAccount("ACME00000001", "Asha Rao", max_amount="500000"),
                VirtualAccount("ACME00000002", "Ravi Kumar"),
            ]
            for result in await bank.create(accounts):
                print(result.number, result.outcome)

            exchange.bank.credit("ACME00000001", "1500.00", narration="invoice 77")
            exchange.bank.credit("ACME00000002", "99.50", mode="UPI")
            async for credit in bank.transactions():
                print(credit.account, credit.amount, credit.mode, credit.narration)
                if credit.account == "ACME00000002":
                    refund = await bank.refund(customer.name, credit.reference, reason="no order")
                    print("refund", refund.refund_reference, refund.status)

            exchange.bank.move_refund(refund.refund_reference, "SUCCESS")
            refund = await bank.settled_refund(refund, timeout=30, every=0.1)
            print("refund", refund.refund_reference, refund.status)


with tempfile.TemporaryDirectory() as folder:
    neo_async.run(main(Path(folder) / "credits.db"))
