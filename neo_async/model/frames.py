"""Rows of reports as frames of pandas or polars.

    to_pandas(await neo.portfolio.holdings())
    to_polars(await neo.orders.book())

Chains and candles have methods of the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from neo_async.errors import UsageError
from neo_async.model.orders import OrderTerms

if TYPE_CHECKING:
    import pandas
    import polars

_SCALARS = str | int | float | date | None
Columns: TypeAlias = dict[str, list[Any]]


def to_pandas(rows: Iterable[msgspec.Struct]) -> pandas.DataFrame:
    """Return a DataFrame with a row for each holding, position, order, fill, instrument, tick or
    other record of one type, and a column for each field that is a number, a text or a date.

    Codes are text, such as `nse_cm` and `CNC`; amounts are rupees, as float64. The terms of an
    `Order` are columns, too; other structured fields, such as the book of a tick, are left out. No
    rows give an empty frame without columns. Raises UsageError when pandas is not installed, and
    for what is no record, or records of several types.
    """
    columns = _columns(rows)
    try:
        import pandas
    except ImportError:
        raise UsageError('to_pandas() needs pandas: pip install "neo-async[pandas]"') from None
    return pandas.DataFrame(columns)


def to_polars(rows: Iterable[msgspec.Struct]) -> polars.DataFrame:
    """Return a polars DataFrame; see `to_pandas`."""
    columns = _columns(rows)
    try:
        import polars
    except ImportError:
        raise UsageError('to_polars() needs polars: pip install "neo-async[polars]"') from None
    # Not strict: the broker's figures may be whole in one row and not in the next.
    return polars.DataFrame(columns, strict=False, infer_schema_length=None)


def _columns(rows: Iterable[msgspec.Struct]) -> Columns:
    """Return the columns of the scalar fields. Raises UsageError."""
    listed = list(rows)
    for row in listed:
        if not isinstance(row, msgspec.Struct) or type(row) is not type(listed[0]):
            raise UsageError(
                f"rows={type(row).__name__}: must be records of one type, such as those of "
                "portfolio.holdings()"
            )
    records = [dict(_fields(row)) for row in listed]
    names = dict.fromkeys(chain.from_iterable(records))
    columns = {name: [record.get(name) for record in records] for name in names}
    # A field is a column when every row has a scalar there: a book may be empty in some rows.
    return {
        name: [_plain(value) for value in values]
        for name, values in columns.items()
        if all(isinstance(value, _SCALARS | Decimal) for value in values)
    }


def _fields(row: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    """Yield the public fields of a record, with the terms of an order among them."""
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, OrderTerms):
            yield from _fields(value)
        elif not name.startswith("_"):
            yield name, value


def _plain(value: Any) -> Any:
    """Return a scalar in the type of its column: enums as their codes, decimals as floats."""
    if isinstance(value, Decimal):
        return float(value)
    return str(value) if isinstance(value, str) else value
