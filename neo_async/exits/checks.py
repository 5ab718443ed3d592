"""What a plan may ask for: each rule raises InvalidOrder with the field, its value and the rule,
before anything is sent."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import TypeAlias, TypedDict

import msgspec

from neo_async.errors import InvalidOrder
from neo_async.execution.validation import check_tick
from neo_async.exits.price_rules import on_tick
from neo_async.exits.state import PlanState, PlanTerms, Resting, Unprotected
from neo_async.model.enums import Product, Segment, Side
from neo_async.model.instruments import Instrument
from neo_async.model.orders import Price, exact_price
from neo_async.model.protection import protection_band
from neo_async.wire.numbers import price_text
from neo_async.wire.rules import read_member

MAX_CHASE_SECONDS = 60.0
NewPrice: TypeAlias = Price | msgspec.UnsetType | None
"""A price that is changed: None removes it, UNSET leaves it as it is."""


class ExitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a plan exits, as its user gives it. Prices are rupees."""

    target: Price | None = None
    """Price at which the profit is taken."""
    stop: Price | None = None
    """Trigger of the stop."""
    trail: Price | None = None
    """Distance at which the stop follows the best price since the entry."""
    trail_step: Price | None = None
    """Least distance by which the stop is moved; a tick where it is not given."""
    stop_limit: Price | None = None
    """Distance of the stop's limit behind its trigger; the broker's protection band where it is not
    given."""
    chase: float = 2.0
    """Seconds after which a triggered stop that has not filled is changed to a market price."""
    resting: Resting = Resting.STOP
    on_unprotected: Unprotected = Unprotected.TELL
    until: date | None = None
    """Last day of a plan of CNC or NRML, whose exits stand up again at every open; None has no
    last day."""


class ExitOptions(TypedDict, total=False):
    """The fields of ExitSettings as keywords."""

    target: Price | None
    stop: Price | None
    trail: Price | None
    trail_step: Price | None
    stop_limit: Price | None
    chase: float
    resting: Resting
    on_unprotected: Unprotected
    until: date | None


def plan_terms(
    instrument: Instrument | None,
    segment: Segment,
    symbol: str,
    side: Side,
    product: Product,
    settings: ExitSettings,
    *,
    price: Decimal | None,
    today: date,
) -> PlanTerms:
    """Return the checked terms of a plan. `price` is what the exits are compared with: the limit of
    the entry, its average price, or the last price; None where none is known. `today` is the date
    in India. Raises InvalidOrder."""
    if instrument is None:
        raise InvalidOrder(
            "symbol",
            symbol,
            "a plan needs its tick and its freeze quantity: await "
            f"neo.instruments.load({str(segment)!r}) first",
        )
    check_product(product)
    target = _price("target", settings.target, instrument)
    stop = _price("stop", settings.stop, instrument)
    trail = _distance("trail", settings.trail, instrument)
    trail_step = _distance("trail_step", settings.trail_step, instrument)
    if target is None and stop is None and trail is None:
        raise InvalidOrder("stop", None, "a plan needs a target, a stop or a trail")
    if trail_step is not None and trail is None:
        raise InvalidOrder("trail_step", settings.trail_step, "needs trail")
    chase = settings.chase
    if (
        isinstance(chase, bool)
        or not isinstance(chase, int | float)
        or not (0 < chase <= MAX_CHASE_SECONDS)
    ):
        raise InvalidOrder("chase", chase, f"must be seconds, up to {MAX_CHASE_SECONDS:g}")
    until = settings.until
    check_last_day(until, today)
    if until is not None and product is Product.MIS:
        raise InvalidOrder("until", str(until), "a position of MIS is closed on its day: leave out")
    tick = Decimal(repr(instrument.tick_size))
    terms = PlanTerms(
        segment=segment,
        symbol=symbol,
        instrument=f"{segment}|{instrument.token}",
        side=side,
        product=product,
        tick=tick,
        largest=_largest(instrument),
        target=target,
        stop=stop,
        trail=trail,
        trail_step=trail_step,
        chase=float(chase),
        resting=read_member("resting", settings.resting, Resting),
        on_unprotected=read_member("on_unprotected", settings.on_unprotected, Unprotected),
        until=settings.until,
    )
    if stop is None and trail is not None:
        if price is None:
            raise InvalidOrder(
                "trail", settings.trail, "needs a stop to begin with: the price is not known"
            )
        first = on_tick(price - terms.sign * trail, terms)
        if first <= 0:
            raise InvalidOrder("trail", settings.trail, f"must be less than the price {price}")
        terms = msgspec.structs.replace(terms, stop=first)
    check_sides(terms, price)
    if terms.resting is Resting.TARGET and terms.target is None:
        raise InvalidOrder("resting", "target", "needs a target")
    limit = _stop_limit(terms, settings.stop_limit, instrument)
    return msgspec.structs.replace(terms, stop_limit=limit)


def changed_terms(
    state: PlanState,
    price: Decimal | None,
    instrument: Instrument,
    *,
    stop: NewPrice,
    target: NewPrice,
    trail: NewPrice,
) -> PlanTerms:
    """Return the terms of a plan with changed prices. Raises InvalidOrder."""
    terms = msgspec.structs.replace(state.terms, stop=state.stop)
    if stop is not msgspec.UNSET:
        terms = msgspec.structs.replace(terms, stop=_price("stop", stop, instrument))
    if target is not msgspec.UNSET:
        terms = msgspec.structs.replace(terms, target=_price("target", target, instrument))
    if trail is not msgspec.UNSET:
        terms = msgspec.structs.replace(terms, trail=_distance("trail", trail, instrument))
    if terms.stop is None and terms.trail is not None:
        raise InvalidOrder("stop", None, "a plan that trails has a stop: remove trail as well")
    if terms.target is None and terms.stop is None:
        raise InvalidOrder("stop", None, "a plan needs a target or a stop: cancel() ends it")
    check_sides(terms, price)
    # A stop that was not there, or is much lower, needs another distance of its limit.
    given = state.terms.stop_limit if state.stop is not None else None
    limit = _stop_limit(terms, given, instrument)
    return msgspec.structs.replace(terms, stop_limit=limit)


def check_product(product: str) -> None:
    """Check that a product is none of the broker's own cover and bracket orders. Raises
    InvalidOrder."""
    if product in (Product.CO, Product.BO):
        raise InvalidOrder(
            "product", str(product), "a plan places ordinary orders: MIS, CNC, NRML or MTF"
        )


def check_sides(terms: PlanTerms, price: Decimal | None) -> None:
    """Check that stop, price and target lie in this order, of a short position in the other one.
    Raises InvalidOrder."""
    stop, target = terms.stop, terms.target
    long = terms.sign == 1
    if stop is not None and target is not None and not terms.is_beyond(target, stop, strictly=True):
        raise InvalidOrder(
            "target",
            str(target),
            f"must be {'above' if long else 'below'} the stop {stop} of a "
            f"{'long' if long else 'short'} position",
        )
    if price is None:
        return
    if stop is not None and not terms.is_beyond(price, stop, strictly=True):
        raise InvalidOrder(
            "stop",
            str(stop),
            f"must be {'below' if long else 'above'} the price {price} of a "
            f"{'long' if long else 'short'} position",
        )
    if target is not None and not terms.is_beyond(target, price, strictly=True):
        raise InvalidOrder(
            "target",
            str(target),
            f"must be {'above' if long else 'below'} the price {price} of a "
            f"{'long' if long else 'short'} position",
        )


def _price(field: str, value: Price | None, instrument: Instrument) -> Decimal | None:
    if value is None:
        return None
    price = Decimal(price_text(field, value))
    if not price:
        raise InvalidOrder(field, value, "must be above 0")
    check_tick(field, price, instrument)
    return price


def _distance(field: str, value: Price | None, instrument: Instrument) -> Decimal | None:
    if value is None:
        return None
    distance = Decimal(price_text(field, value))
    if not distance:
        raise InvalidOrder(field, value, "must be above 0: leave it out for a stop that stands")
    check_tick(field, distance, instrument)
    return distance


def _stop_limit(terms: PlanTerms, given: Price | None, instrument: Instrument) -> Decimal:
    if terms.stop is None:
        return Decimal(0)
    if given is not None:
        distance = Decimal(price_text("stop_limit", given))
        check_tick("stop_limit", distance, instrument)
    else:
        is_option = instrument.option_type in ("CE", "PE")
        band = protection_band(int(terms.stop * 100), is_option=is_option)
        distance = max(Decimal(band) / 100 // terms.tick * terms.tick, terms.tick)
    if terms.stop - distance <= 0:
        distance = max(Decimal(0), terms.stop - terms.tick)
    return distance


def _largest(instrument: Instrument) -> int:
    freeze = instrument.freeze_quantity
    if freeze is None:
        return 10**9
    return max(freeze // instrument.lot_size, 1) * instrument.lot_size


def check_last_day(until: date | None, today: date) -> None:
    """Check the last day of a plan or a trigger. Raises InvalidOrder."""
    if until is None:
        return
    if type(until) is not date:
        raise InvalidOrder("until", until, "must be a date")
    if until < today:
        raise InvalidOrder("until", str(until), "is over")


def known_price(price: float | None) -> Decimal | None:
    """Return a price of a report as a decimal; None where it shows none that can be."""
    return exact_price(price) if price is not None and 0 < price < math.inf else None
