"""Commands of exit plans: brackets, covers, and stop and target for a position.

Plans are carried out by the process that keeps them, so that these commands run until their plans
have ended. With a journal the plans go on after the next start.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

import neo_async
from neo_async.base import logs
from neo_async.cli import naming, output
from neo_async.cli.account import side_name
from neo_async.cli.connection import Account, Fresh, halt_on_sigusr1
from neo_async.cli.exits_output import (
    KEPT_FIELDS,
    follow,
    kept_fields,
    print_kept,
    read_journal,
    way_to_show,
)
from neo_async.cli.output import AsCsv, AsJson, money
from neo_async.cli.parameters import (
    choice_argument,
    choice_option,
    day,
    existing_file,
    new_file,
    seconds,
    whole_number,
)
from neo_async.cli.prompts import Yes, confirm, interruption_reported
from neo_async.client import NeoClient
from neo_async.config import ConnectionSettings
from neo_async.errors import InvalidOrder, OutcomeUnknown
from neo_async.exits.checks import (
    MAX_CHASE_SECONDS,
    ExitOptions,
    ExitSettings,
    known_price,
    plan_terms,
)
from neo_async.exits.plan import ExitPlan
from neo_async.exits.state import Resting, Unprotected
from neo_async.model.enums import OrderType, Product, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.orders import OrderRequest, OrderTerms
from neo_async.model.portfolio import Position
from neo_async.wire.rules import check_order

_PRODUCTS = (Product.CNC, Product.MIS, Product.NRML, Product.MTF)
_TYPES = (OrderType.LIMIT, OrderType.MARKET, OrderType.SL)

_Segment: TypeAlias = Annotated[Segment, choice_argument(Segment, "SEGMENT")]
_Symbol: TypeAlias = Annotated[
    str, typer.Argument(metavar="SYMBOL", help="Trading symbol, such as ITBEES-EQ.")
]
_Side: TypeAlias = Annotated[naming.SideName, choice_argument(naming.SideName, "SIDE")]
_Quantity: TypeAlias = Annotated[
    int,
    typer.Argument(
        metavar="QUANTITY",
        parser=whole_number(1),
        help="Units, not lots; above the freeze quantity in slices.",
    ),
]
_Product: TypeAlias = Annotated[Product, choice_option(_PRODUCTS, "--product", metavar="PRODUCT")]
_Price: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Limit of the entry; for types L and SL.")
]
_Type: TypeAlias = Annotated[
    OrderType, choice_option(_TYPES, "--type", metavar="TYPE", help="Type of the entry:")
]
_Trigger: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Trigger of the entry; for type SL.")
]
_Target: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Price at which the profit is taken.")
]
_Stop: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Price at which the loss is limited.")
]
_Trail: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="RUPEES", help="Distance at which the stop follows the best price since the entry."
    ),
]
_TrailStep: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="RUPEES", help="Least move of a stop that follows; a tick by default."),
]
_StopLimit: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="RUPEES",
        help="Distance of the stop's limit behind its trigger; by default the broker's protection "
        "band.",
    ),
]
_Chase: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        parser=seconds(0.1, MAX_CHASE_SECONDS),
        help="Time after which a triggered stop that has not filled goes to the market.",
    ),
]
_Resting: TypeAlias = Annotated[
    Resting,
    choice_option(
        Resting,
        "--resting",
        metavar="EXIT",
        help="The exit that rests at the broker, while the other one is watched here:",
    ),
]
_OnUnprotected: TypeAlias = Annotated[
    Unprotected,
    choice_option(
        Unprotected,
        "--on-unprotected",
        metavar="ACTION",
        help="What to do when the broker refuses the stop; exit closes the position:",
    ),
]
_Until: TypeAlias = Annotated[
    date | None,
    typer.Option(
        metavar="DAY", parser=day, help="Last day of a plan of CNC or NRML, as YYYY-MM-DD."
    ),
]
_Journal: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=new_file,
        help="Keep the plan in this file, and go on with the plans that are in it.",
    ),
]

_CONNECTIONS = ConnectionSettings()
"""Plans send several requests at once, unlike other commands."""


def bracket(
    segment: _Segment,
    symbol: _Symbol,
    side: _Side,
    quantity: _Quantity,
    product: _Product,
    price: _Price = None,
    order_type: _Type = OrderType.LIMIT,
    trigger: _Trigger = None,
    target: _Target = None,
    stop: _Stop = None,
    trail: _Trail = None,
    trail_step: _TrailStep = None,
    stop_limit: _StopLimit = None,
    chase: _Chase = 2.0,
    resting: _Resting = Resting.STOP,
    on_unprotected: _OnUnprotected = Unprotected.TELL,
    until: _Until = None,
    journal: _Journal = None,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Place an entry, and exit what fills of it by target or stop. Runs until that is done.

    The stop rests at the broker; when the price touches the target, it is changed into the target.
    Ctrl-C leaves the stop at the broker. With --journal the plan goes on after the next start.

    neo-async bracket nse_cm ITBEES-EQ buy 10 --product MIS --price 39.35 --target 40 --stop 39
    """
    entry = OrderRequest(segment, symbol, side.side, quantity, product, price, order_type, trigger)
    options = ExitOptions(
        target=target,
        stop=stop,
        trail=trail,
        trail_step=trail_step,
        stop_limit=stop_limit,
        chase=chase,
        resting=resting,
        on_unprotected=on_unprotected,
        until=until,
    )
    _enter("bracket", entry, options, journal, yes=yes, fresh=fresh, as_json=as_json, as_csv=as_csv)


def cover(
    segment: _Segment,
    symbol: _Symbol,
    side: _Side,
    quantity: _Quantity,
    product: _Product,
    price: _Price = None,
    order_type: _Type = OrderType.LIMIT,
    trigger: _Trigger = None,
    stop: _Stop = None,
    trail: _Trail = None,
    trail_step: _TrailStep = None,
    stop_limit: _StopLimit = None,
    chase: _Chase = 2.0,
    on_unprotected: _OnUnprotected = Unprotected.TELL,
    until: _Until = None,
    journal: _Journal = None,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Place an entry, and a stop for what fills of it. Runs until the position is exited.

    Ctrl-C leaves the stop at the broker. With --journal the plan goes on after the next start.

    neo-async cover nse_cm ITBEES-EQ buy 10 --product MIS --price 39.35 --stop 38.90
    """
    if stop is None and trail is None:
        raise InvalidOrder("stop", None, "a cover order needs a stop, or a trail")
    entry = OrderRequest(segment, symbol, side.side, quantity, product, price, order_type, trigger)
    options = ExitOptions(
        stop=stop,
        trail=trail,
        trail_step=trail_step,
        stop_limit=stop_limit,
        chase=chase,
        on_unprotected=on_unprotected,
        until=until,
    )
    _enter("cover", entry, options, journal, yes=yes, fresh=fresh, as_json=as_json, as_csv=as_csv)


def protect(
    segment: _Segment,
    symbol: _Symbol,
    product: Annotated[
        Product | None,
        choice_option(
            _PRODUCTS,
            "--product",
            metavar="PRODUCT",
            help="Needed where positions of several products are open:",
        ),
    ] = None,
    target: _Target = None,
    stop: _Stop = None,
    trail: _Trail = None,
    trail_step: _TrailStep = None,
    stop_limit: _StopLimit = None,
    chase: _Chase = 2.0,
    resting: _Resting = Resting.STOP,
    on_unprotected: _OnUnprotected = Unprotected.TELL,
    until: _Until = None,
    journal: _Journal = None,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Exit an open position by target or stop, whichever comes first. Runs until that is done.

    Ctrl-C leaves the stop at the broker. With --journal the plan goes on after the next start.

    neo-async protect nse_cm ITBEES-EQ --target 40.10 --stop 38.90
    """
    options = ExitOptions(
        target=target,
        stop=stop,
        trail=trail,
        trail_step=trail_step,
        stop_limit=stop_limit,
        chase=chase,
        resting=resting,
        on_unprotected=on_unprotected,
        until=until,
    )
    account = Account()
    instrument = naming.read_listed(account, segment, symbol)

    async def find(neo: NeoClient) -> Position:
        await neo.instruments.load(segment)
        return await neo.exits.open_position(instrument, product=product)

    held = account.read(find, fresh=fresh)
    is_long = (held.net_quantity or 0) > 0
    _check(
        instrument,
        Side.BUY if is_long else Side.SELL,
        Product(held.product),
        options,
        price=known_price(held.last_price),
    )
    confirm(
        f"protect {held.net_quantity:,} {held.symbol} ({held.segment}) {held.product}, "
        f"{'bought' if is_long else 'sold'} at {money(held.average_price)}, "
        f"last {money(held.last_price)}: {_describe_exits(options)}",
        account,
        yes=yes,
        note=_note_of(journal),
    )
    _run(
        account,
        lambda neo: neo.exits.protect(instrument, product=held.product, **options),
        segment,
        journal,
        fresh=False,
        as_json=as_json,
        as_csv=as_csv,
    )


def exits(
    journal: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            parser=existing_file,
            help="Journal of a bot or of a command, which may go on writing.",
        ),
    ],
    is_all: Annotated[
        bool, typer.Option("--all", help="Show the plans that have ended as well.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Log in, and carry out the plans of the account until they have ended."
        ),
    ] = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show the exit plans and price triggers in a journal. Needs no account, but for --resume.

    neo-async exits --journal orders.db
    """
    if resume:
        _run(Account(), None, None, journal, fresh=fresh, as_json=as_json, as_csv=as_csv)
        return
    rows = [row for row in read_journal(journal) if is_all or not row.is_final]
    output.print_report(
        rows,
        print_kept,
        empty=f"no plans in {journal}" if is_all else f"no open plans in {journal}",
        columns=KEPT_FIELDS,
        fields=kept_fields,
        as_json=as_json,
        as_csv=as_csv,
    )


# --- before sending -------------------------------------------------------------------------------


def _enter(
    what: str,
    entry: OrderRequest,
    options: ExitOptions,
    journal: Path | None,
    *,
    yes: bool,
    fresh: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Check a plan with an entry, ask, and carry it out."""
    terms = check_order(entry)
    account = Account()
    instrument = naming.read_listed(account, Segment(terms.segment), terms.symbol)
    _check_entry(instrument, terms, options)
    confirm(
        f"{what}: {_describe_entry(terms)}; {_describe_exits(options)}",
        account,
        yes=yes,
        note=_note_of(journal),
    )
    _run(
        account,
        lambda neo: neo.exits.bracket(
            instrument.segment,
            instrument.symbol,
            Side(terms.side),
            terms.quantity,
            product=Product(terms.product),
            price=terms.price,
            order_type=OrderType(terms.order_type),
            trigger=terms.trigger,
            **options,
        ),
        instrument.segment,
        journal,
        fresh=fresh,
        as_json=as_json,
        as_csv=as_csv,
    )


def _check_entry(instrument: Instrument, terms: OrderTerms, options: ExitOptions) -> None:
    """Check the exits against the limit of the entry. Without one, they are compared with the last
    price when the plan begins, at which a trail without a stop begins as well. Raises
    InvalidOrder."""
    begins_at_price = options.get("stop") is None and options.get("trail") is not None
    if terms.price is None and begins_at_price:
        return
    side, product = Side(terms.side), Product(terms.product)
    _check(instrument, side, product, options, price=terms.price)


def _check(
    instrument: Instrument,
    side: Side,
    product: Product,
    options: ExitOptions,
    *,
    price: Decimal | None,
) -> None:
    settings = ExitSettings(**options)
    plan_terms(
        instrument, instrument.segment, instrument.symbol, side, product, settings, price=price
    )


def _describe_entry(terms: OrderTerms) -> str:
    words = [
        f"{side_name(terms.side)} {terms.quantity:,} {terms.symbol} ({terms.segment})",
        f"type {terms.order_type}",
    ]
    for name, value in (("price", terms.price), ("trigger", terms.trigger)):
        if value is not None:
            words.append(f"{name} {value}")
    words.append(terms.product)
    return ", ".join(words)


def _describe_exits(options: ExitOptions) -> str:
    words = [
        f"{name} {value}"
        for name, value in (
            ("stop", options.get("stop")),
            ("target", options.get("target")),
            ("trail", options.get("trail")),
        )
        if value is not None
    ]
    if options.get("resting") is Resting.TARGET:
        words.append("the target rests")
    if (until := options.get("until")) is not None:
        words.append(f"until {until}")
    return ", ".join(words)


def _note_of(journal: Path | None) -> str:
    if journal is not None:
        return f"kept in {journal}"
    return "in no journal: the plan ends with this command, and its stop stays at the broker"


# --- the run --------------------------------------------------------------------------------------


def _run(
    account: Account,
    begin: Callable[[NeoClient], Awaitable[ExitPlan]] | None,
    segment: Segment | None,
    journal: Path | None,
    *,
    fresh: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Begin a plan, if one is given, and show the plans of the client until all have ended."""
    show = way_to_show(as_json=as_json, as_csv=as_csv)

    async def work() -> bool:
        async with account.connect(fresh=fresh, journal=journal, connections=_CONNECTIONS) as neo:
            halt_on_sigusr1(neo)
            if segment is not None:
                await neo.instruments.load(segment)
            if begin is not None:
                with interruption_reported("the entry or its exits", "neo-async orders"):
                    await _begin(begin(neo))
            elif not neo.exits.plans and not neo.exits.triggers:
                output.print_sentence(f"no open plans of {account} in {journal}", err=True)
            if sys.stderr.isatty() and neo.exits.plans:
                output.echo_dim("Ctrl-C ends this command, and leaves the exit orders as they are")
            return await follow(neo, show, journal=journal)

    with _without_log_of_plans():
        is_done = neo_async.run(work())
    if not is_done:
        raise typer.Exit(1)


@contextlib.contextmanager
def _without_log_of_plans() -> Iterator[None]:
    """Leave the warnings of plans out, unless --debug logs everything: each change is shown, with
    its reason."""
    log = logging.getLogger(logs.EXITS)
    level = log.level
    if not log.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


async def _begin(beginning: Awaitable[ExitPlan]) -> None:
    try:
        await beginning
    except OutcomeUnknown as error:
        # The plan goes on, and exits the entry if it took effect.
        output.print_sentence(f"neo-async: {error}", err=True)
