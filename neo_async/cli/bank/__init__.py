"""`neo-async bank`: virtual accounts, their credits and refunds."""

from __future__ import annotations

import typer

from neo_async.cli.bank import accounts, profile, refunds, transactions

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Virtual accounts at Kotak Open Banking: create and change them, take their credits, "
    "send money back.",
    epilog=(
        "Reads KOTAK_BANK_CLIENT_ID and KOTAK_BANK_CLIENT_SECRET; KOTAK_BANK_PROFILE names the "
        "file with your bank's format, KOTAK_BANK_CLIENT_NAME, KOTAK_BANK_PHYSICAL_ACCOUNT and "
        "KOTAK_BANK_URL take precedence over it."
    ),
)
app.command()(accounts.create)
app.command()(accounts.modify)
app.command()(accounts.delete)
app.command()(transactions.transactions)
app.command()(refunds.refund)
app.command()(profile.profile)
