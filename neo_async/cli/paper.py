"""`neo-async paper`: play market, bank and broker at an exchange of one's own."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from neo_async.base.india import IST
from neo_async.cli import output
from neo_async.cli.commands import Command, new_group
from neo_async.cli.exchange import read_fault_text
from neo_async.cli.exchange_output import ADMIN_URL
from neo_async.cli.output import AsCsv, AsJson, money, units
from neo_async.cli.parameters import seconds, whole_number
from neo_async.cli.table_layout import Column
from neo_async.errors import NotSent, UsageError
from neo_async.wire.lenient import UNREADABLE

_TIMEOUT = 10.0

paper = new_group(
    help="Prices, payments, clock, faults and settings of `neo-async exchange`.",
    epilog=f"Reads {ADMIN_URL}, which `neo-async exchange --env FILE` writes, and NEO_CA_FILE.",
)


@paper.command(cls=Command)
def price(
    instrument: Annotated[
        str,
        typer.Argument(
            metavar="INSTRUMENT", help="RELIANCE-EQ, nse_cm:RELIANCE-EQ, or a token: nse_cm:2885."
        ),
    ],
    rupees: Annotated[
        str, typer.Argument(metavar="RUPEES", help="The price of the trade that prints.")
    ],
) -> None:
    """Print a trade at a price: orders that it passes are filled, the market goes on from there."""
    answer = _call("POST", "price", {"instrument": instrument, "price": rupees})
    output.echo(f"{answer['segment']}:{answer['symbol']} traded at {money(answer['price'])}")


@paper.command(cls=Command)
def credit(
    account: Annotated[
        str, typer.Argument(metavar="ACCOUNT", help="Number of the virtual account.")
    ],
    rupees: Annotated[str, typer.Argument(metavar="RUPEES", help="The amount: 1500.00.")],
    mode: Annotated[
        str, typer.Option("--mode", metavar="MODE", help="NEFT, RTGS, IMPS or UPI.")
    ] = "NEFT",
    count: Annotated[
        int,
        typer.Option(
            parser=whole_number(1), metavar="NUMBER", help="The number of equal payments."
        ),
    ] = 1,
) -> None:
    """Pay into a virtual account at the exchange's bank."""
    form = {"virtualAccountNumber": account, "amount": rupees, "mode": mode, "count": count}
    answer = _call("POST", "bank/credit", form)
    output.echo(f"paid in, reference {answer['transactionReference']}")


@paper.command(cls=Command)
def clock(
    now: Annotated[
        str, typer.Argument(help="A time in India, not before the present: 2026-11-23T09:15:00.")
    ] = "",
    advance: Annotated[
        float | None,
        typer.Option(
            "--advance", metavar="SECONDS", parser=seconds(0), help="Move it on by seconds."
        ),
    ] = None,
) -> None:
    """Move the exchange's clock, or show it."""
    if now and advance is not None:
        raise UsageError("either a time or --advance, not both")
    content = {"now": now} if now else {"advance": advance or 0}
    output.echo(f"{_call('POST', 'clock', content)['india']} in India")


@paper.command(cls=Command)
def reset() -> None:
    """Open a fresh market with the same seed. Logins, settings and faults stay."""
    _call("POST", "reset", {})
    output.echo("the market starts over")


@paper.command(cls=Command)
def faults(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="[FILE|JSON]", help="""Faults as of --faults: '{"lose_after": 0.1}'; {} ends."""
        ),
    ] = "",
) -> None:
    """Set the faults that are injected, or show them and how many there were."""
    if not wanted:
        _print(_call("GET", "faults"))
        return
    content = msgspec.to_builtins(read_fault_text(wanted))
    _print(_call("POST", "faults", content))


@paper.command(cls=Command)
def settings(
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Settings to change.")
    ] = None,
) -> None:
    """Change settings of market, broker and feeds, or show all."""
    if not changes:
        _print(_call("GET", "settings"))
        return
    from neo_async.exchange.switches import read_switches

    values = read_switches(changes)
    answer = _call("POST", "settings", values)
    _print({name: answer[name] for name in values})


@paper.command(cls=Command)
def ledger(as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """List every order that the exchange has accepted, in the order of acceptance."""
    rows = _call("GET", "ledger")
    columns = (
        Column("Order", is_whole=True),
        Column("Account", rank=2),
        Column("Symbol", is_whole=True),
        Column("Side"),
        Column("Quantity", is_number=True),
        Column("Filled", is_number=True),
        Column("Price", is_number=True),
        Column("State"),
        Column("Tag", rank=1),
    )
    output.print_report(
        rows,
        lambda orders: output.print_table(
            columns,
            (
                (
                    row["number"],
                    row["account"],
                    row["symbol"],
                    "buy" if row["side"] == "B" else "sell",
                    units(row["quantity"]),
                    units(row["filled_quantity"]),
                    money(row["price"]),
                    output.status(row["state"]),
                    row["client_tag"],
                )
                for row in orders
            ),
        ),
        empty="no order was accepted",
        columns=list(rows[0]) if rows else [],
        as_json=as_json,
        as_csv=as_csv,
    )


@paper.command(cls=Command)
def requests(as_csv: AsCsv = False, as_json: AsJson = False) -> None:
    """List every request that reached the exchange, the oldest first."""
    rows = _call("GET", "requests")
    columns = (Column("Time", is_whole=True), Column("Method"), Column("Path", is_whole=True))
    output.print_report(
        rows,
        lambda seen: output.print_table(
            columns, ((_clock_time(row["time"]), row["method"], row["path"]) for row in seen)
        ),
        empty="no request has come",
        columns=["time", "method", "path"],
        as_json=as_json,
        as_csv=as_csv,
    )


def _clock_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, IST).strftime("%H:%M:%S.%f")[:-3]


def _print(content: object) -> None:
    output.print_json(content)


def _call(method: str, name: str, content: object = None) -> Any:
    """Return the answer of the exchange's control surface.

    Raises UsageError for what it refuses, in its words, and NotSent when it cannot be reached.
    """
    url = os.environ.get(ADMIN_URL, "")
    if not url.startswith(("http://", "https://")):
        raise UsageError(
            f"environment lacks {ADMIN_URL}: start `neo-async exchange --env FILE` and source FILE"
        )
    body = None if content is None else msgspec.json.encode(content)
    request = urllib.request.Request(f"{url}/{name}", data=body, method=method)
    try:
        with _opener().open(request, timeout=_TIMEOUT) as answer:
            return msgspec.json.decode(answer.read())
    except urllib.error.HTTPError as error:
        raise UsageError(_reason(error.read(), error.code)) from None
    except (OSError, *UNREADABLE) as error:
        reason = getattr(error, "reason", None) or error
        # Without the path: it may hold the key.
        host = url.partition("/admin")[0]
        raise NotSent(f"cannot reach the exchange at {host}: {reason}") from error


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that uses no proxy: the exchange is on this machine or this network."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    ca_file = os.environ.get("NEO_CA_FILE", "")
    if ca_file and Path(ca_file).exists():
        context = ssl.create_default_context(cafile=ca_file)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def _reason(body: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any])["error"])
    except (KeyError, *UNREADABLE):
        return f"the exchange answered HTTP {status}"
