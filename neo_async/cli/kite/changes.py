"""Commands that buy, sell and change SIPs. Each describes its request and prompts before
sending."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec
import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.kite.access import Access
from neo_async.cli.kite.reports import fund_units, print_orders, print_sips
from neo_async.cli.output import AsCsv, AsJson, money
from neo_async.cli.parameters import choice_option, whole_number
from neo_async.cli.prompts import Yes, confirm, interruption_reported
from neo_async.errors import InvalidOrder, NeoError, UsageError
from neo_async.kite import Frequency, Fund, FundOrder, FundOrderStatus, KiteMutualFunds, Sip, rules
from neo_async.kite.rules import order_form, sip_change_form, sip_form
from neo_async.model.enums import Side

T = TypeVar("T", bound=msgspec.Struct)

_Isin: TypeAlias = Annotated[str, typer.Argument(metavar="ISIN", help="ISIN of the fund.")]
_Tag: TypeAlias = Annotated[
    str, typer.Option("--tag", metavar="TAG", help="Your own tag, up to 8 letters and digits.")
]
_Day: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--day",
        parser=whole_number(),
        metavar="DAY",
        help="Day of the month: 1, 5, 10, 15, 20 or 25; for monthly SIPs.",
    ),
]
_Order: TypeAlias = Annotated[str, typer.Argument(metavar="ORDER", help="Order id.")]
_Sip: TypeAlias = Annotated[str, typer.Argument(metavar="SIP", help="SIP id.")]

_ANY_TAG = "x"
"""A valid tag, for checks before the real one is generated."""


class _Status(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"


def buy(
    isin: _Isin,
    amount: Annotated[str, typer.Argument(metavar="RUPEES", help="Amount.")],
    tag: _Tag = "",
    yes: Yes = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Buy units of a fund for an amount, with the next batch at 13:30.

    neo-async kite buy INF174K01LS2 5000
    """
    form = order_form(isin, Side.BUY, amount, None, tag or _ANY_TAG)

    async def describe(kite: KiteMutualFunds) -> str:
        fund = await _fund(kite, isin)
        if fund is not None:
            rules.check_purchase(fund, form["amount"])
        return f"buy {_name(fund, isin)} for {amount} rupees"

    async def act(kite: KiteMutualFunds) -> str:
        await _fund(kite, isin)
        return await kite.place_order(isin, Side.BUY, amount=amount, tag=tag)

    _run(describe, act, _ORDERS, yes=yes, as_json=as_json, as_csv=as_csv)


def sell(
    isin: _Isin,
    units: Annotated[str, typer.Argument(metavar="UNITS", help="To three decimals.")],
    tag: _Tag = "",
    yes: Yes = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Sell units of a fund, with the next batch at 13:30."""
    order_form(isin, Side.SELL, None, units, tag or _ANY_TAG)

    async def describe(kite: KiteMutualFunds) -> str:
        return f"sell {units} units of {_name(await _fund(kite, isin), isin)}"

    async def act(kite: KiteMutualFunds) -> str:
        await _fund(kite, isin)
        return await kite.place_order(isin, Side.SELL, quantity=units, tag=tag)

    _run(describe, act, _ORDERS, yes=yes, as_json=as_json, as_csv=as_csv)


def cancel(
    order_id: _Order, yes: Yes = False, as_csv: AsCsv = False, as_json: AsJson = False
) -> None:
    """Cancel an open order."""

    async def describe(kite: KiteMutualFunds) -> str:
        row = await kite.order(order_id)
        what = f"{money(row.amount)} rupees" if row.amount else f"{fund_units(row.quantity)} units"
        return (
            f"cancel order {order_id}: {row.transaction_type.lower()} {what} of {row.fund}, "
            f"{(row.status or '?').lower()}"
        )

    _run(
        describe,
        lambda kite: kite.cancel_order(order_id),
        _ORDERS,
        yes=yes,
        as_json=as_json,
        as_csv=as_csv,
    )


def place_sip(
    isin: _Isin,
    amount: Annotated[str, typer.Argument(metavar="RUPEES", help="Of each instalment.")],
    frequency: Annotated[Frequency, choice_option(Frequency, "--frequency", metavar="FREQUENCY")],
    day: _Day = None,
    instalments: Annotated[
        int,
        typer.Option(
            parser=whole_number(),
            metavar="NUMBER",
            help="Number of instalments; -1 until it is cancelled.",
        ),
    ] = -1,
    initial: Annotated[
        str | None,
        typer.Option(
            metavar="RUPEES", help="First investment, needed if there is none in the fund yet."
        ),
    ] = None,
    tag: _Tag = "",
    yes: Yes = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Begin a SIP.

    neo-async kite sip place INF174K01LS2 1000 --frequency monthly --day 5 --initial 5000
    """
    form = sip_form(isin, amount, frequency, instalments, day, initial, tag or _ANY_TAG)

    async def describe(kite: KiteMutualFunds) -> str:
        count = "until it is cancelled" if instalments == -1 else f"{instalments} times"
        on = f" on day {day}" if day is not None else ""
        first = f", and {initial} at first" if initial is not None else ""
        fund = await _fund(kite, isin)
        if fund is not None:
            rules.check_sip(fund, form)
        return f"invest {amount} rupees in {_name(fund, isin)} {frequency}{on}, {count}{first}"

    async def act(kite: KiteMutualFunds) -> str:
        await _fund(kite, isin)
        return await kite.place_sip(
            isin,
            amount,
            frequency=frequency,
            instalments=instalments,
            instalment_day=day,
            initial_amount=initial,
            tag=tag,
        )

    _run(describe, act, _SIPS, yes=yes, as_json=as_json, as_csv=as_csv)


def modify_sip(
    sip_id: _Sip,
    amount: Annotated[
        str | None, typer.Option(metavar="RUPEES", help="Of each instalment.")
    ] = None,
    frequency: Annotated[
        Frequency | None, choice_option(Frequency, "--frequency", metavar="FREQUENCY")
    ] = None,
    day: _Day = None,
    instalments: Annotated[
        int | None,
        typer.Option(parser=whole_number(), metavar="NUMBER", help="-1 until it is cancelled."),
    ] = None,
    status: Annotated[
        _Status | None,
        choice_option(_Status, "--status", metavar="STATUS", help="Pause it, or resume it:"),
    ] = None,
    yes: Yes = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Change the given fields of a SIP, and leave the others."""
    changes: dict[str, Any] = {
        "amount": amount,
        "frequency": frequency,
        "instalments": instalments,
        "instalment_day": day,
        "status": status,
    }
    try:
        form = sip_change_form(**changes)
    except InvalidOrder as error:
        if error.field != "changes":
            raise
        raise UsageError("nothing to change: give --amount, --status or another option") from None

    async def describe(kite: KiteMutualFunds) -> str:
        wanted = ", ".join(f"{name} {value}" for name, value in form.items())
        return f"modify {_described(await kite.sip(sip_id))}: {wanted}"

    def act(kite: KiteMutualFunds) -> Awaitable[str]:
        return kite.modify_sip(sip_id, **changes)

    _run(describe, act, _SIPS, yes=yes, as_json=as_json, as_csv=as_csv)


def cancel_sip(
    sip_id: _Sip, yes: Yes = False, as_csv: AsCsv = False, as_json: AsJson = False
) -> None:
    """Cancel a SIP."""

    async def describe(kite: KiteMutualFunds) -> str:
        return f"cancel {_described(await kite.sip(sip_id))}"

    _run(
        describe,
        lambda kite: kite.cancel_sip(sip_id),
        _SIPS,
        yes=yes,
        as_json=as_json,
        as_csv=as_csv,
    )


# --- prompts, requests and results ----------------------------------------------------------------


class _Kind(NamedTuple, Generic[T]):
    """Functions that read and show what a command has changed."""

    read: Callable[[KiteMutualFunds, str], Awaitable[T]]
    print_rows: Callable[[Sequence[T]], None]


_ORDERS: Final = _Kind(KiteMutualFunds.order, print_orders)
_SIPS: Final = _Kind(KiteMutualFunds.sip, print_sips)


def _run(
    describe: Callable[[KiteMutualFunds], Awaitable[str]],
    act: Callable[[KiteMutualFunds], Awaitable[str]],
    kind: _Kind[T],
    *,
    yes: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Describe a request and ask for confirmation, send it, and show the order or SIP."""
    access = Access()

    async def preview() -> str:
        async with access.client() as kite:
            return await describe(kite)

    async def send() -> T:
        async with access.client() as kite:
            with interruption_reported("it", "neo-async kite orders (or sips)"):
                number = await act(kite)
            try:
                return await kind.read(kite, number)
            except NeoError as error:
                # The request has succeeded. A failure here could make the user repeat it.
                output.echo(f"{number} was sent, but cannot be read: {error}", err=True)
                raise typer.Exit(0) from None

    if not yes:
        confirm(neo_async.run(preview()), access, yes=False)
    row = neo_async.run(send())
    output.print_record(row, lambda row: kind.print_rows([row]), as_json=as_json, as_csv=as_csv)
    if isinstance(row, FundOrder) and row.status == FundOrderStatus.REJECTED:
        raise typer.Exit(1)


async def _fund(kite: KiteMutualFunds, isin: str) -> Fund | None:
    """Load the day's list, against which the client then checks requests, and return the fund."""
    try:
        return (await kite.instruments()).get(isin)
    except NeoError as error:
        output.echo(f"not checked against the list of funds: {error}", err=True)
        return None


def _name(fund: Fund | None, isin: str) -> str:
    return f"{fund.name} ({isin})" if fund is not None else isin


def _described(sip: Sip) -> str:
    return (
        f"SIP {sip.sip_id}: {money(sip.instalment_amount)} rupees {sip.frequency} in {sip.fund}, "
        f"{sip.status.lower()}"
    )
