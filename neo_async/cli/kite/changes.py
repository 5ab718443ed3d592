"""Buying, selling, SIPs: each says what it will send for whom, and asks before it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.asking import Yes, confirm, interruption_told
from neo_async.cli.kite.access import Access
from neo_async.cli.kite.reports import fund_units, print_orders, print_sips
from neo_async.cli.output import AsJson, money
from neo_async.errors import InvalidOrder, NeoError, UsageError
from neo_async.kite import Frequency, Fund, FundOrder, FundOrderStatus, KiteMutualFunds, Sip, rules
from neo_async.kite.rules import order_form, sip_change_form, sip_form
from neo_async.model.enums import Side

T = TypeVar("T")

_Isin: TypeAlias = Annotated[str, typer.Argument(metavar="ISIN", help="ISIN of the fund.")]
_Tag: TypeAlias = Annotated[str, typer.Option(help="Your own mark, up to 8 letters and digits.")]
_Day: TypeAlias = Annotated[
    int | None, typer.Option(help="Day of the month: 1, 5, 10, 15, 20 or 25; for monthly SIPs.")
]
_Order: TypeAlias = Annotated[str, typer.Argument(metavar="ORDER", help="Order id.")]
_Sip: TypeAlias = Annotated[str, typer.Argument(metavar="SIP", help="SIP id.")]

_ANY_TAG = "x"
"""For checks before one is made."""


class _Status(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"


def buy(
    isin: _Isin,
    amount: Annotated[str, typer.Argument(metavar="RUPEES")],
    tag: _Tag = "",
    yes: Yes = False,
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

    _show_order(_asked(describe, act, _read_order, yes=yes), as_json=as_json)


def sell(
    isin: _Isin,
    units: Annotated[str, typer.Argument(help="To three decimals.")],
    tag: _Tag = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Sell units of a fund, with the next batch at 13:30."""
    order_form(isin, Side.SELL, None, units, tag or _ANY_TAG)

    async def describe(kite: KiteMutualFunds) -> str:
        return f"sell {units} units of {_name(await _fund(kite, isin), isin)}"

    async def act(kite: KiteMutualFunds) -> str:
        await _fund(kite, isin)
        return await kite.place_order(isin, Side.SELL, quantity=units, tag=tag)

    _show_order(_asked(describe, act, _read_order, yes=yes), as_json=as_json)


def cancel(order_id: _Order, yes: Yes = False, as_json: AsJson = False) -> None:
    """Cancel an order that is open."""

    async def act(kite: KiteMutualFunds) -> str:
        return await kite.cancel_order(order_id)

    async def describe(kite: KiteMutualFunds) -> str:
        row = await kite.order(order_id)
        what = f"{money(row.amount)} rupees" if row.amount else f"{fund_units(row.quantity)} units"
        return (
            f"cancel order {order_id}: {row.transaction_type.lower()} {what} of {row.fund}, "
            f"{(row.status or '?').lower()}"
        )

    _show_order(_asked(describe, act, _read_order, yes=yes), as_json=as_json)


def place_sip(
    isin: _Isin,
    amount: Annotated[str, typer.Argument(metavar="RUPEES", help="Of each instalment.")],
    frequency: Annotated[Frequency, typer.Option(case_sensitive=False)],
    day: _Day = None,
    instalments: Annotated[
        int, typer.Option(help="How many there are to be; -1 until it is cancelled.")
    ] = -1,
    initial: Annotated[
        str | None,
        typer.Option(
            metavar="RUPEES", help="To begin with, where nothing was invested in the fund before."
        ),
    ] = None,
    tag: _Tag = "",
    yes: Yes = False,
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

    _show_sip(_asked(describe, act, _read_sip, yes=yes), as_json=as_json)


def modify_sip(
    sip_id: _Sip,
    amount: Annotated[str | None, typer.Option(metavar="RUPEES")] = None,
    frequency: Annotated[Frequency | None, typer.Option(case_sensitive=False)] = None,
    day: _Day = None,
    instalments: Annotated[int | None, typer.Option(help="-1 until it is cancelled.")] = None,
    status: Annotated[
        _Status | None, typer.Option(case_sensitive=False, help="Pause it, or let it go on.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a SIP, and leave the rest as it is."""
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

    async def act(kite: KiteMutualFunds) -> str:
        return await kite.modify_sip(sip_id, **changes)

    _show_sip(_asked(describe, act, _read_sip, yes=yes), as_json=as_json)


def cancel_sip(sip_id: _Sip, yes: Yes = False, as_json: AsJson = False) -> None:
    """End a SIP."""

    async def describe(kite: KiteMutualFunds) -> str:
        return f"cancel {_described(await kite.sip(sip_id))}"

    async def act(kite: KiteMutualFunds) -> str:
        return await kite.cancel_sip(sip_id)

    _show_sip(_asked(describe, act, _read_sip, yes=yes), as_json=as_json)


# --- before sending -------------------------------------------------------------------------------


def _asked(
    describe: Callable[[KiteMutualFunds], Awaitable[str]],
    act: Callable[[KiteMutualFunds], Awaitable[str]],
    show: Callable[[KiteMutualFunds, str], Awaitable[T]],
    *,
    yes: bool,
) -> T:
    """Act when somebody wants it, and read what has become of it."""
    access = Access()

    async def say() -> str:
        async with access.client() as kite:
            return await describe(kite)

    async def send() -> T:
        async with access.client() as kite:
            with interruption_told("it", "neo-async kite orders (or sips)"):
                number = await act(kite)
            try:
                return await show(kite, number)
            except NeoError as error:
                # What was asked for is done; whoever reads "failed" might do it again.
                output.echo(f"{number} was sent, but cannot be read: {error}", err=True)
                raise typer.Exit(0) from None

    if not yes:
        confirm(neo_async.run(say()), access, yes=False)
    return neo_async.run(send())


async def _fund(kite: KiteMutualFunds, isin: str) -> Fund | None:
    """From the day's list, against which requests are checked from then on; None without one."""
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


# --- after sending --------------------------------------------------------------------------------


async def _read_order(kite: KiteMutualFunds, order_id: str) -> FundOrder:
    return await kite.order(order_id)


async def _read_sip(kite: KiteMutualFunds, sip_id: str) -> Sip:
    return await kite.sip(sip_id)


def _show_order(row: FundOrder, *, as_json: bool) -> None:
    if as_json:
        output.print_json(row)
    else:
        print_orders([row])
    if row.status == FundOrderStatus.REJECTED:
        raise typer.Exit(1)


def _show_sip(row: Sip, *, as_json: bool) -> None:
    if as_json:
        output.print_json(row)
    else:
        print_sips([row])
