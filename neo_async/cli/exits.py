"""Commands of exit plans: brackets, covers, and stop and target for a position.

Plans are carried out by the process that keeps them, so that these commands run until their plans
have ended. With a journal the plans go on after the next start.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec
import typer

import neo_async
from neo_async.base import logs
from neo_async.base.india import date_of
from neo_async.cli import naming, output
from neo_async.cli.connection import Account, Fresh, halt_on_sigusr1
from neo_async.cli.exit_options import (
    PRODUCTS,
    ChaseOption,
    JournalOption,
    OnUnprotectedOption,
    PriceOption,
    ProductOption,
    RestingOption,
    StopLimitOption,
    StopOption,
    TargetOption,
    TrailOption,
    TrailStepOption,
    TriggerOption,
    TypeOption,
    UntilOption,
)
from neo_async.cli.exits_output import (
    KEPT_FIELDS,
    follow,
    kept_fields,
    print_kept,
    read_journal,
    way_to_show,
)
from neo_async.cli.output import AsCsv, AsJson, money, side_name
from neo_async.cli.parameters import choice_option, existing_file
from neo_async.cli.prompts import Yes, confirm, interruption_reported
from neo_async.cli.trade import FOUND_LATER, OrderedInstrument, OrderQuantity, OrderSide
from neo_async.client import NeoClient
from neo_async.config import ConnectionSettings
from neo_async.errors import InvalidOrder, OutcomeUnknown
from neo_async.exits.checks import (
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

_CONNECTIONS = ConnectionSettings()
"""Plans send several requests at once, unlike other commands."""


def bracket(
    instrument: OrderedInstrument,
    side: OrderSide,
    quantity: OrderQuantity,
    product: ProductOption,
    price: PriceOption = None,
    order_type: TypeOption = OrderType.LIMIT,
    trigger: TriggerOption = None,
    target: TargetOption = None,
    stop: StopOption = None,
    trail: TrailOption = None,
    trail_step: TrailStepOption = None,
    stop_limit: StopLimitOption = None,
    chase: ChaseOption = 2.0,
    resting: RestingOption = Resting.STOP,
    on_unprotected: OnUnprotectedOption = Unprotected.TELL,
    until: UntilOption = None,
    journal: JournalOption = None,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Place an entry, and exit what fills of it by target or stop. Runs until that is done.

    The stop rests at the broker; when the price touches the target, it is changed into the target.
    Ctrl-C leaves the stop at the broker. With --journal the plan goes on after the next start.

    neo-async bracket ITBEES buy 10 --product MIS --price 39.35 --target 40.10 --stop 38.90
    """
    name = naming.read_words(instrument)
    entry = OrderRequest(
        name.segment,
        name.symbol or FOUND_LATER,
        side,
        quantity,
        product,
        price,
        order_type,
        trigger,
    )
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
    _enter(
        "bracket",
        name,
        entry,
        options,
        journal,
        yes=yes,
        fresh=fresh,
        as_json=as_json,
        as_csv=as_csv,
    )


def cover(
    instrument: OrderedInstrument,
    side: OrderSide,
    quantity: OrderQuantity,
    product: ProductOption,
    price: PriceOption = None,
    order_type: TypeOption = OrderType.LIMIT,
    trigger: TriggerOption = None,
    stop: StopOption = None,
    trail: TrailOption = None,
    trail_step: TrailStepOption = None,
    stop_limit: StopLimitOption = None,
    chase: ChaseOption = 2.0,
    on_unprotected: OnUnprotectedOption = Unprotected.TELL,
    until: UntilOption = None,
    journal: JournalOption = None,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Place an entry, and a stop for what fills of it. Runs until the position is exited.

    Ctrl-C leaves the stop at the broker. With --journal the plan goes on after the next start.

    neo-async cover ITBEES buy 10 --product MIS --price 39.35 --stop 38.90
    """
    if stop is None and trail is None:
        raise InvalidOrder("stop", None, "a cover order needs a stop, or a trail")
    name = naming.read_words(instrument)
    entry = OrderRequest(
        name.segment,
        name.symbol or FOUND_LATER,
        side,
        quantity,
        product,
        price,
        order_type,
        trigger,
    )
    options = ExitOptions(
        stop=stop,
        trail=trail,
        trail_step=trail_step,
        stop_limit=stop_limit,
        chase=chase,
        on_unprotected=on_unprotected,
        until=until,
    )
    _enter(
        "cover", name, entry, options, journal, yes=yes, fresh=fresh, as_json=as_json, as_csv=as_csv
    )


def protect(
    instrument: OrderedInstrument,
    product: Annotated[
        Product | None,
        choice_option(
            PRODUCTS,
            "--product",
            metavar="PRODUCT",
            help="Needed where positions of several products are open:",
        ),
    ] = None,
    target: TargetOption = None,
    stop: StopOption = None,
    trail: TrailOption = None,
    trail_step: TrailStepOption = None,
    stop_limit: StopLimitOption = None,
    chase: ChaseOption = 2.0,
    resting: RestingOption = Resting.STOP,
    on_unprotected: OnUnprotectedOption = Unprotected.TELL,
    until: UntilOption = None,
    journal: JournalOption = None,
    yes: Yes = False,
    fresh: Fresh = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Exit an open position by target or stop, whichever comes first. Runs until that is done.

    Ctrl-C leaves the stop at the broker. With --journal the plan goes on after the next start.

    neo-async protect ITBEES --target 40.10 --stop 38.90
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
    listed = _listed(account, naming.read_words(instrument))

    async def find(neo: NeoClient) -> Position:
        await neo.instruments.load(listed.segment)
        return await neo.exits.open_position(listed, product=product)

    held = account.read(find, fresh=fresh)
    is_long = (held.net_quantity or 0) > 0
    _check(
        listed,
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
        lambda neo: neo.exits.protect(listed, product=held.product, **options),
        listed.segment,
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
    name: naming.Name,
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
    instrument = _listed(account, name)
    terms = msgspec.structs.replace(terms, symbol=instrument.symbol)
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
            instrument,
            terms.side,
            terms.quantity,
            product=terms.product,
            price=terms.price,
            order_type=terms.order_type,
            trigger=terms.trigger,
            **options,
        ),
        instrument.segment,
        journal,
        fresh=fresh,
        as_json=as_json,
        as_csv=as_csv,
    )


def _listed(account: Account, name: naming.Name) -> Instrument:
    """Return an instrument with its tick and freeze quantity, which a plan needs. Raises UsageError
    where the scrip master cannot be had, or does not have it."""
    symbol, instrument = naming.read_ordered(account, name)
    if instrument is None:
        raise InvalidOrder("symbol", symbol, "a plan needs its tick and its freeze quantity")
    return instrument


def _check_entry(instrument: Instrument, terms: OrderTerms, options: ExitOptions) -> None:
    """Check the exits against the limit of the entry. Without one, they are compared with the last
    price when the plan begins, at which a trail without a stop begins as well. Raises
    InvalidOrder."""
    begins_at_price = options.get("stop") is None and options.get("trail") is not None
    if terms.price is None and begins_at_price:
        return
    _check(instrument, terms.side, terms.product, options, price=terms.price)


def _check(
    instrument: Instrument,
    side: Side,
    product: ProductOption,
    options: ExitOptions,
    *,
    price: Decimal | None,
) -> None:
    settings = ExitSettings(**options)
    plan_terms(
        instrument,
        instrument.segment,
        instrument.symbol,
        side,
        product,
        settings,
        price=price,
        today=date_of(time.time()),
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
