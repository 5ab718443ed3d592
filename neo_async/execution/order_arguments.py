"""The arguments of an order as callers write them: an instrument by any name, and dicts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from neo_async.errors import InvalidField, InvalidOrder, UsageError
from neo_async.execution.validation import check_tradable
from neo_async.market_data.instruments import Instruments
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument, InstrumentLike
from neo_async.model.orders import OrderRequest
from neo_async.wire.rules import check_symbol, read_segment

_PAIR: Final = ("segment", "symbol")
_NEEDED: Final = ("side", "quantity", "product")
KEYS: Final = ("instrument", *OrderRequest.__struct_fields__)
"""Keys of an order that is given as a dict: the arguments of `place`."""
_KNOWN_ELSEWHERE: Final = {
    "exchange_segment": "segment",
    "trading_symbol": "symbol",
    "transaction_type": "side",
    "qty": "quantity",
    "limit_price": "price",
    "trigger_price": "trigger",
    "type": "order_type",
}
"""Names that arguments have in the broker's own SDK and in other clients."""


def leading_arguments(
    instruments: Instruments | None, name: InstrumentLike, side: Any, quantity: Any
) -> tuple[Segment, str, Any, Any]:
    """Return segment, symbol, side and quantity of a call that names the instrument in one
    argument. Raises InvalidOrder when the instrument is not known, and UsageError when an argument
    is missing."""
    if isinstance(name, Segment) or side is None or quantity is None:
        raise UsageError(
            "an order needs (segment, symbol, side, quantity) or (instrument, side, quantity)"
        )
    instrument = named_instrument(instruments, name)
    return instrument.segment, instrument.symbol, side, quantity


def request_of(order: object, instruments: Instruments | None) -> OrderRequest:
    """Return an order that is given as an OrderRequest or as a dict of the arguments of `place`.
    Raises InvalidOrder for a key that is unknown or missing."""
    if isinstance(order, OrderRequest):
        return order
    if not isinstance(order, Mapping):
        raise InvalidOrder(
            "order", order, f"must be an OrderRequest, or a dict with {', '.join(_NEEDED)} and more"
        )
    arguments = dict(order)
    for key in arguments:
        if key not in KEYS:
            raise InvalidOrder(str(key), arguments[key], _unknown(str(key)))
    named = arguments.pop("instrument", None)
    if named is not None:
        if extra := [field for field in _PAIR if field in arguments]:
            raise InvalidOrder(extra[0], arguments[extra[0]], "must not stand beside an instrument")
        instrument = named_instrument(instruments, named)
        arguments |= {"segment": instrument.segment, "symbol": instrument.symbol}
    elif lacking := [field for field in _PAIR if field not in arguments]:
        raise InvalidOrder(
            lacking[0], None, "is missing: give an instrument, or segment and symbol"
        )
    if missing := [field for field in _NEEDED if field not in arguments]:
        raise InvalidOrder(missing[0], None, f"is missing: an order needs {', '.join(_NEEDED)}")
    return OrderRequest(**arguments)


def named_instrument(instruments: Instruments | None, name: InstrumentLike) -> Instrument:
    """Return the instrument that a name means, by the loaded scrip masters. Raises InvalidOrder,
    also for an index."""
    if isinstance(name, Instrument):
        return check_tradable(name)
    if instruments is None:
        raise InvalidOrder("instrument", name, "must be an Instrument: there are no scrip masters")
    try:
        return check_tradable(instruments.resolve(name))
    except InvalidField as error:
        raise InvalidOrder(error.field, error.value, error.rule) from None


def selection(
    instruments: Instruments | None,
    *,
    segment: Segment | str | None,
    symbol: str | None,
    instrument: InstrumentLike | None,
) -> tuple[Segment | None, str | None]:
    """Return segment and symbol of the orders or positions that a call is about, None for any. The
    symbol may be in lower case. Raises InvalidOrder."""
    if instrument is not None:
        if segment is not None or symbol is not None:
            raise InvalidOrder("instrument", instrument, "stands alone: no segment, no symbol")
        listed = named_instrument(instruments, instrument)
        return listed.segment, listed.symbol
    if isinstance(symbol, str):
        symbol = symbol.upper()
    if symbol is not None:
        check_symbol(symbol)
    return None if segment is None else read_segment(segment), symbol


def order_of(
    instruments: Instruments | None,
    segment: Any,
    symbol: Any,
    side: Any,
    quantity: Any,
    terms: Mapping[str, Any],
) -> OrderRequest:
    """Return the order of a call of `place`, which may name the instrument in one argument. Raises
    what `leading_arguments` does, and TypeError, as Python does, for keyword arguments that are
    wrong, with the names that are right."""
    if quantity is None:
        segment, symbol, side, quantity = leading_arguments(instruments, segment, symbol, side)
    try:
        return OrderRequest(segment, symbol, side, quantity, **terms)
    except TypeError:
        raise _wrong_arguments(terms) from None


def _wrong_arguments(terms: Mapping[str, object]) -> TypeError:
    for name in terms:
        if name not in KEYS:
            return TypeError(f"place(): {name} {_unknown(name)}")
    return TypeError("place() needs product, such as product=Product.CNC")


def _unknown(name: str) -> str:
    near = _KNOWN_ELSEWHERE.get(name) or next(iter(difflib.get_close_matches(name, KEYS, 1)), "")
    hint = f"did you mean {near}? " if near else ""
    return f"is no argument of an order: {hint}There are {', '.join(KEYS)}"
