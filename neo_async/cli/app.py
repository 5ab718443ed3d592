"""The `neo-async` command group, and the way in which errors are shown."""

from __future__ import annotations

import errno
import logging
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import neo_async
from neo_async.base.text import shown
from neo_async.cli import account, bank, demo, exchange, instruments, market, output, trade, watch
from neo_async.cli.kite import kite
from neo_async.cli.paper import paper
from neo_async.errors import NeoError, UsageError


class _Commands(TyperGroup):
    """Command group that prints the package's own errors, and those of files, as one line on
    stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NeoError as error:
            output.echo(f"neo-async: {error}", err=True)
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has closed the pipe: typer exits silently
            output.echo(f"neo-async: {error}", err=True)
            raise typer.Exit(1) from None


class _OneLine(logging.Formatter):
    """Log formatter that keeps untrusted text on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return shown(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        # The last line of a traceback is the error's text.
        return "\n".join(map(shown, super().formatException(ei).split("\n")))


if isinstance(logging.lastResort, logging.Handler):
    # It prints warnings of a program that has not set up logging, as these commands.
    logging.lastResort.setFormatter(_OneLine())


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Account commands read NEO_CONSUMER_KEY, NEO_MOBILE_NUMBER, NEO_UCC, NEO_MPIN and "
        "NEO_TOTP_SECRET; NEO_LOGIN_URL and NEO_CA_FILE lead them to another server, such as "
        "`neo-async exchange`. Exit codes: 0 done, 1 the broker refused or the network failed, "
        "2 the command is not valid."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.echo(neo_async.__version__)
        raise typer.Exit


@app.callback()
def neo_async_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Trade on Kotak Neo from the shell, or try it on an exchange of your own."""


_TRY = "Try it out"
_ACCOUNT = "Account"
_ORDERS = "Orders"
_MARKET = "Market"

app.command(rich_help_panel=_TRY)(demo.demo)
app.command(rich_help_panel=_TRY)(exchange.exchange)
app.command(rich_help_panel=_ACCOUNT)(account.login)
app.command(rich_help_panel=_ACCOUNT)(account.logout)
app.command(rich_help_panel=_ACCOUNT)(account.orders)
app.command(rich_help_panel=_ACCOUNT)(account.trades)
app.command(rich_help_panel=_ACCOUNT)(account.positions)
app.command(rich_help_panel=_ACCOUNT)(account.holdings)
app.command(rich_help_panel=_ACCOUNT)(account.limits)
app.command(rich_help_panel=_ORDERS)(trade.place)
app.command(rich_help_panel=_ORDERS)(trade.modify)
app.command(rich_help_panel=_ORDERS)(trade.cancel)
app.command(rich_help_panel=_ORDERS)(trade.margin)
app.command(rich_help_panel=_MARKET)(market.quote)
app.command(rich_help_panel=_MARKET)(market.chain)
app.command(rich_help_panel=_MARKET)(market.candles)
app.command(rich_help_panel=_MARKET)(watch.watch)
app.command(rich_help_panel=_MARKET)(instruments.instruments)
app.add_typer(paper, name="paper", rich_help_panel=_TRY)
app.add_typer(kite, name="kite", rich_help_panel="Mutual funds")
app.add_typer(bank.app, name="bank", rich_help_panel="Bank")
