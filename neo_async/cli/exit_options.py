"""Options of the commands of exit plans."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from neo_async.cli.parameters import choice_option, day, new_file, seconds
from neo_async.exits.checks import MAX_CHASE_SECONDS
from neo_async.exits.state import Resting, Unprotected
from neo_async.model.enums import OrderType, Product

PRODUCTS = (Product.CNC, Product.MIS, Product.NRML, Product.MTF)
_TYPES = (OrderType.LIMIT, OrderType.MARKET, OrderType.SL)

ProductOption: TypeAlias = Annotated[
    Product, choice_option(PRODUCTS, "--product", metavar="PRODUCT")
]
PriceOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Limit of the entry; for types L and SL.")
]
TypeOption: TypeAlias = Annotated[
    OrderType, choice_option(_TYPES, "--type", metavar="TYPE", help="Type of the entry:")
]
TriggerOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Trigger of the entry; for type SL.")
]
TargetOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Price at which the profit is taken.")
]
StopOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="RUPEES", help="Price at which the loss is limited.")
]
TrailOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="RUPEES", help="Distance at which the stop follows the best price since the entry."
    ),
]
TrailStepOption: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="RUPEES", help="Least move of a stop that follows; a tick by default."),
]
StopLimitOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="RUPEES",
        help="Distance of the stop's limit behind its trigger; by default the broker's protection "
        "band.",
    ),
]
ChaseOption: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        parser=seconds(0.1, MAX_CHASE_SECONDS),
        help="Time after which a triggered stop that has not filled goes to the market.",
    ),
]
RestingOption: TypeAlias = Annotated[
    Resting,
    choice_option(
        Resting,
        "--resting",
        metavar="EXIT",
        help="The exit that rests at the broker, while the other one is watched here:",
    ),
]
OnUnprotectedOption: TypeAlias = Annotated[
    Unprotected,
    choice_option(
        Unprotected,
        "--on-unprotected",
        metavar="ACTION",
        help="What to do when the broker refuses the stop; exit closes the position:",
    ),
]
UntilOption: TypeAlias = Annotated[
    date | None,
    typer.Option(
        metavar="DAY", parser=day, help="Last day of a plan of CNC or NRML, as YYYY-MM-DD."
    ),
]
JournalOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=new_file,
        help="Keep the plan in this file, and go on with the plans that are in it.",
    ),
]
