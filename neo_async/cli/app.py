"""The `neo-async` command group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import neo_async
from neo_async.cli import (
    account,
    bank,
    connection,
    demo,
    exchange,
    exits,
    instruments,
    market,
    output,
    square_off,
    trade,
    watch,
)
from neo_async.cli.commands import Command, new_group
from neo_async.cli.kite import kite
from neo_async.cli.paper import paper

app = new_group(
    help="Trade on Kotak Neo from the shell, or try it on an exchange of your own.",
    epilog=(
        "Account commands read NEO_CONSUMER_KEY, NEO_MOBILE_NUMBER, NEO_UCC, NEO_MPIN and "
        "NEO_TOTP_SECRET, or the account that --account names; NEO_LOGIN_URL and NEO_CA_FILE lead "
        "them to another server, such as neo-async exchange. The login is kept for the day, and "
        "shared with bots by NeoClient(session=True). Exit codes: 0 done, 1 the broker refused "
        "or the network failed, 2 the command is not valid, 130 interrupted, 143 ended by SIGTERM."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.echo(neo_async.__version__)
        raise typer.Exit


@app.callback()
def neo_async_command(
    account_name: Annotated[
        str | None,
        typer.Option(
            "--account",
            metavar="NAME",
            help="Account of ~/.config/neo_async/accounts.toml, instead of the environment's.",
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file",
            metavar="FILE",
            help="Add the variables of a file such as .env to the environment.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Log every step to stderr, and show where an error comes from."
        ),
    ] = False,
) -> None:
    """Read the options of the whole command; `Group.main` has acted on --debug by then."""
    connection.choose_account(account_name)
    if env_file is not None:
        connection.load_env_file(env_file)


_PANELS = {
    "Try it out": (demo.demo, exchange.exchange),
    "Account": (
        account.login,
        account.logout,
        account.ip,
        account.orders,
        account.trades,
        account.positions,
        account.holdings,
        account.limits,
    ),
    "Orders": (trade.place, trade.modify, trade.cancel, trade.margin),
    "Exits": (exits.bracket, exits.cover, exits.protect, exits.exits, square_off.square_off),
    "Market": (market.quote, market.chain, market.candles, watch.watch, instruments.instruments),
}

for _panel, _functions in _PANELS.items():
    for _function in _functions:
        app.command(cls=Command, rich_help_panel=_panel)(_function)
app.add_typer(paper, name="paper", rich_help_panel="Try it out")
app.add_typer(kite, name="kite", rich_help_panel="Mutual funds")
app.add_typer(bank.app, name="bank", rich_help_panel="Bank")
