"""`neo-async bank`: virtual accounts, their credits and refunds."""

from __future__ import annotations

from neo_async.cli.bank import accounts, profile, refunds, transactions
from neo_async.cli.commands import Command, new_group

app = new_group(
    help="Virtual accounts at Kotak Open Banking: create and change them, take their credits, "
    "send money back.",
    epilog=(
        "Reads KOTAK_BANK_CLIENT_ID and KOTAK_BANK_CLIENT_SECRET; KOTAK_BANK_PROFILE names the "
        "file with your bank's format, KOTAK_BANK_CLIENT_NAME, KOTAK_BANK_PHYSICAL_ACCOUNT and "
        "KOTAK_BANK_URL take precedence over it."
    ),
)
for _function in (
    accounts.create,
    accounts.modify,
    accounts.delete,
    transactions.transactions,
    refunds.refund,
    profile.profile,
):
    app.command(cls=Command)(_function)
