"""Commands that place and change orders. Each describes its request and prompts before sending."""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeAlias

import msgspec
import typer

import neo_async
from neo_async.cli import naming, output
from neo_async.cli.account import ORDER_FIELDS, known_units, order_fields, print_orders
from neo_async.cli.connection import Account, Fresh
from neo_async.cli.csv_output import print_csv
from neo_async.cli.output import AsCsv, AsJson, Cell, money
from neo_async.cli.parameters import choice_argument, choice_option, seconds, whole_number
from neo_async.cli.prompts import Yes, confirm, interruption_reported, show_account
from neo_async.cli.table_layout import Column
from neo_async.client import NeoClient
from neo_async.errors import NeoError, Rejected, UsageError
from neo_async.execution.order import Order
from neo_async.execution.validation import check_against, check_tradable
from neo_async.model.enums import OrderStatus, OrderType, Product, Side, Validity
from neo_async.model.orders import Bracket, OrderRequest, OrderRow
from neo_async.model.portfolio import OrderMargin
from neo_async.wire.numbers import price_text
from neo_async.wire.rules import check_order, margin_form, place_form
from neo_async.wire.tags import TagMaker

OrderedInstrument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="INSTRUMENT",
        autocompletion=naming.ordered_completer,
        help=f"{naming.HELP} Or segment and trading symbol: nse_cm RELIANCE-EQ.",
    ),
]
OrderSide: TypeAlias = Annotated[Side, choice_argument(Side, "SIDE")]
OrderQuantity: TypeAlias = Annotated[
    int, typer.Argument(metavar="QUANTITY", parser=whole_number(1), help="Units, not lots.")
]
_Number: TypeAlias = Annotated[str, typer.Argument(metavar="ORDER", help="Order number.")]
_Product: TypeAlias = Annotated[Product, choice_option(Product, "--product", metavar="PRODUCT")]
_Price: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Limit price; for types L and SL.")
]
_Trigger: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="RUPEES", help="Trigger price; for types SL and SL-M, and product CO."),
]
_Type: TypeAlias = Annotated[OrderType, choice_option(OrderType, "--type", metavar="TYPE")]
_NewType: TypeAlias = Annotated[
    OrderType | None, choice_option(OrderType, "--type", metavar="TYPE")
]
_Wait: TypeAlias = Annotated[
    float,
    typer.Option(
        parser=seconds(0), metavar="SECONDS", help="Longest wait for the outcome; 0 does not wait."
    ),
]

_SHOWING = "neo-async orders"

FOUND_LATER = "0"
"""Stands for symbol or token in a check of the other terms, before the instrument is looked up."""

_SETTLED = (
    OrderStatus.OPEN,
    OrderStatus.TRIGGER_PENDING,
    OrderStatus.AMO_RECEIVED,
    OrderStatus.AMO_MODIFY_RECEIVED,
)
"""States in which an order may stay for long, beside the final ones."""


def place(
    instrument: OrderedInstrument,
    side: OrderSide,
    quantity: OrderQuantity,
    product: _Product,
    price: _Price = None,
    order_type: _Type = OrderType.LIMIT,
    trigger: _Trigger = None,
    validity: Annotated[
        Validity, choice_option(Validity, "--validity", metavar="VALIDITY")
    ] = Validity.DAY,
    disclosed: Annotated[
        int,
        typer.Option(
            parser=whole_number(0), metavar="UNITS", help="Units shown to the market; 0 shows all."
        ),
    ] = 0,
    amo: Annotated[bool, typer.Option("--amo", help="After-market order.")] = False,
    tag: Annotated[
        str, typer.Option("--tag", metavar="TAG", help="Your own tag, up to 9 letters and digits.")
    ] = "",
    target: Annotated[
        str | None, typer.Option(metavar="RUPEES", help="Product BO: distance of the target.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(metavar="RUPEES", help="Product BO: distance of the stop.")
    ] = None,
    trail: Annotated[
        str, typer.Option(metavar="RUPEES", help="Product BO: step by which the stop follows.")
    ] = "0",
    wait: _Wait = 3.0,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Place an order, and show its outcome.

    neo-async place nse_cm ITBEES-EQ buy 10 --product CNC --price 39.35

    neo-async place 'NIFTY 01DEC 24500 CE' buy 65 --product NRML --price 120
    """
    name = naming.read_words(instrument)
    bracket = None
    if target is not None and stop is not None:
        bracket = Bracket(target=target, stop=stop, trail=trail)
    elif target is not None or stop is not None:
        raise UsageError("a bracket needs both --target and --stop")
    request = OrderRequest(
        segment=name.segment,
        symbol=name.symbol or FOUND_LATER,
        side=side,
        quantity=quantity,
        product=product,
        price=price,
        order_type=order_type,
        trigger=trigger,
        validity=validity,
        disclosed_quantity=disclosed,
        amo=amo,
        tag=tag,
        bracket=bracket,
    )
    # An invalid order is refused before the user is prompted.
    terms = check_order(request)
    place_form(terms, TagMaker().make(tag), bracket)
    account = Account()
    symbol, listed = naming.read_ordered(account, name)
    if listed is not None:
        check_against(
            check_tradable(listed),
            quantity=terms.quantity,
            price=terms.price,
            trigger=terms.trigger,
            is_banded=False,  # the file may be of an earlier day
        )
    request = msgspec.structs.replace(request, symbol=symbol)
    confirm(f"place {_describe(request)}", account, yes=yes)

    async def send() -> OrderRow:
        async with account.connect(fresh=fresh) as neo:
            with interruption_reported("the order", _SHOWING):
                order = await neo.orders.place(**msgspec.structs.asdict(request))
            return await _outcome(neo, order, wait, *_SETTLED)

    _report(neo_async.run(send()), as_json=as_json, as_csv=as_csv)


def modify(
    number: _Number,
    price: _Price = None,
    quantity: Annotated[
        int | None,
        typer.Option(parser=whole_number(1), metavar="UNITS", help="The new total, in units."),
    ] = None,
    trigger: _Trigger = None,
    order_type: _NewType = None,
    validity: Annotated[
        Validity | None, choice_option(Validity, "--validity", metavar="VALIDITY")
    ] = None,
    disclosed: Annotated[
        int | None,
        typer.Option(parser=whole_number(0), metavar="UNITS", help="Units shown to the market."),
    ] = None,
    wait: _Wait = 3.0,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Change the given fields of an order, and leave the others."""
    changes = {
        "price": price,
        "quantity": quantity,
        "trigger": trigger,
        "order_type": order_type,
        "validity": validity,
        "disclosed_quantity": disclosed,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        raise UsageError("nothing to change: give --price, --quantity or another option")
    for name, value in (("price", price), ("trigger", trigger)):
        if value is not None:
            price_text(name, value)
    account = Account()
    if not yes:
        row = neo_async.run(_find(account, number, fresh))
        wanted = ", ".join(f"{name} {value}" for name, value in changes.items())
        confirm(f"modify {_describe_row(row)}: {wanted}", account, yes=yes)
    else:
        show_account(account)

    async def send() -> OrderRow:
        async with account.connect(fresh=fresh and yes) as neo:
            with interruption_reported("the change", _SHOWING):
                order = await neo.orders.modify(number, **changes)  # type: ignore[arg-type]
            return await _outcome(neo, order, wait, *_SETTLED)

    _report(neo_async.run(send()), as_json=as_json, as_csv=as_csv)


def cancel(
    number: Annotated[
        str | None, typer.Argument(metavar="ORDER", help="Order number; or give --all.")
    ] = None,
    is_all: Annotated[
        bool,
        typer.Option("--all", help="Every open order of the account, wherever it was placed."),
    ] = False,
    wait: _Wait = 3.0,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Cancel one open order, or all of them."""
    if (number is None) is not is_all:
        raise UsageError("give one order's number, or --all")
    account = Account()
    if number is None:
        _cancel_all(account, wait, yes=yes, fresh=fresh, as_json=as_json, as_csv=as_csv)
        return
    if not yes:
        row = neo_async.run(_find(account, number, fresh))
        confirm(f"cancel {_describe_row(row)}", account, yes=yes)
    else:
        show_account(account)

    async def send() -> OrderRow:
        async with account.connect(fresh=fresh and yes) as neo:
            with interruption_reported("the cancellation", _SHOWING):
                order = await neo.orders.cancel(number)
            return await _outcome(neo, order, wait)

    _report(neo_async.run(send()), as_json=as_json, as_csv=as_csv)


def _cancel_all(
    account: Account, wait: float, *, yes: bool, fresh: bool, as_json: bool, as_csv: bool
) -> None:
    if not yes:
        rows = account.read(lambda neo: neo.orders.book(), fresh=fresh)
        open_rows = [row for row in rows if not row.status.is_final]
        what = [f"cancel {_describe_row(row)}" for row in open_rows]
        confirm(what or "cancel every open order: none at the moment", account, yes=yes)
    else:
        show_account(account)

    async def send() -> tuple[list[OrderRow], list[NeoError]]:
        async with account.connect(fresh=fresh and yes) as neo:
            with interruption_reported("the cancellations", _SHOWING):
                results = await neo.orders.cancel_all()
            orders = {one.number: one for one in results if isinstance(one, Order)}
            await asyncio.gather(*(_wait_for(order, wait) for order in orders.values()))
            rows = [row for row in await neo.orders.book() if row.number in orders]
            return rows, [one for one in results if isinstance(one, NeoError)]

    rows, errors = neo_async.run(send())
    if rows or as_json or as_csv:
        output.print_report(
            rows,
            print_orders,
            empty="",
            columns=ORDER_FIELDS,
            fields=order_fields,
            as_json=as_json,
            as_csv=as_csv,
        )
    elif not errors:
        output.echo("no order was open", err=True)
    for error in errors:
        output.echo(f"neo-async: {error}", err=True)
    if errors or any(not row.status.is_final for row in rows):
        raise typer.Exit(1)


def margin(
    instrument: OrderedInstrument,
    side: OrderSide,
    quantity: OrderQuantity,
    product: _Product,
    price: _Price = None,
    order_type: _Type = OrderType.LIMIT,
    trigger: _Trigger = None,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show the margin that an order would need, and whether it is available. Places nothing."""
    name = naming.read_words(instrument)
    margin_form(
        segment=name.segment,
        token=FOUND_LATER,
        side=side,
        quantity=quantity,
        product=product,
        price=price,
        order_type=order_type,
        trigger=trigger,
    )
    account = Account()
    key = naming.read_listed_key(account, name.text)

    async def ask() -> OrderMargin:
        async with account.connect(fresh=fresh) as neo:
            return await neo.portfolio.margin(
                key,
                side,
                quantity,
                product=product,
                price=price,
                order_type=order_type,
                trigger=trigger,
            )

    output.print_record(neo_async.run(ask()), _print_margin, as_json=as_json, as_csv=as_csv)


def _print_margin(row: OrderMargin) -> None:
    output.print_table(
        (Column("Margin"), Column("Rupees", is_number=True)),
        (
            ("Order", money(row.order)),
            ("Used already", money(row.used)),
            ("Required", money(row.required)),
            ("Available", money(row.available)),
            ("Short by", Cell(money(row.shortfall), "" if row.sufficient else "red")),
        ),
    )


# --- before sending -------------------------------------------------------------------------------


def _describe(request: OrderRequest) -> str:
    side = output.side_name(request.side)
    words = [
        f"{side} {request.quantity:,} {request.symbol} ({request.segment})",
        f"type {request.order_type}",
    ]
    for name, value in (("price", request.price), ("trigger", request.trigger)):
        if value is not None:
            words.append(f"{name} {value}")
    words.append(f"{request.product} {request.validity}")
    if request.disclosed_quantity:
        words.append(f"{request.disclosed_quantity:,} disclosed")
    if request.amo:
        words.append("after market")
    if request.bracket is not None:
        words.append(f"target {request.bracket.target} and stop {request.bracket.stop} away")
    return ", ".join(words)


def _describe_row(row: OrderRow) -> str:
    price = f" at {money(row.price)}" if row.price else ""
    quantity, filled = known_units(row, "quantity"), known_units(row, "filled_quantity")
    return (
        f"order {row.number}: {output.side_name(row.side)} {quantity} {row.symbol} ({row.segment})"
        f"{price}, {row.product} {row.validity}, {row.status_text}, {filled} filled"
    )


async def _find(account: Account, number: str, fresh: bool) -> OrderRow:
    async with account.connect(fresh=fresh) as neo:
        return await _row(neo, number)


# --- after sending --------------------------------------------------------------------------------


async def _outcome(neo: NeoClient, order: Order, wait: float, *finals: OrderStatus) -> OrderRow:
    """Return the order's row once it is final or in one of these states, or when the wait is
    over."""
    await _wait_for(order, wait, *finals)
    try:
        return await _row(neo, order.number)
    except NeoError as error:
        # The request has succeeded. A failure here could make the user repeat it.
        output.echo(f"sent, but the order book could not be read: {error}", err=True)
        raise typer.Exit(0) from None


async def _wait_for(order: Order, wait: float, *finals: OrderStatus) -> None:
    try:
        if wait:
            with interruption_reported(f"order {order.number} or its change", _SHOWING):
                await order.wait(*finals, timeout=wait)
    except TimeoutError:
        output.echo(f"order {order.number} is still pending after {wait:g} s", err=True)


async def _row(neo: NeoClient, number: str) -> OrderRow:
    for row in await neo.orders.book():
        if row.number == number:
            return row
    raise Rejected(f"there is no order {number} in today's order book")


def _report(row: OrderRow, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        output.print_json(order_fields(row))
    elif as_csv:
        print_csv(ORDER_FIELDS, [order_fields(row)])
    else:
        print_orders([row])
    if row.reject_reason:  # of the order, or of the change
        raise typer.Exit(1)
