"""Odd values: what a broker's reports have in place of a number when something went wrong."""

from __future__ import annotations

from typing import Any, Final

import msgspec

ODD: Final[tuple[object, ...]] = (
    "1,039.35",
    "N/A",
    "+5",
    "NaN",
    "inf",
    None,
    "--",
    "",
    "1e400",
    "39.3x",
    [],
    {},
)
"""Values seen in brokers' reports, or possible there."""

_NUMBERS: Final = frozenset(
    {
        *("avgPrc", "prc", "trgPrc", "qty", "fldQty", "unFldSz", "dscQty", "cnlQty"),
        *("buyAmt", "sellAmt", "cfBuyAmt", "cfSellAmt", "ltp", "mktPro", "brdLtQty", "tckSz"),
        *("flBuyQty", "flSellQty", "cfBuyQty", "cfSellQty", "multiplier", "precision"),
    }
)
"""Fields of rows that hold numbers, by the broker's names. None of them identifies the order."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def with_odd_value(body: bytes, choice: int) -> bytes:
    """Return the JSON with one number of its rows replaced; `choice` picks which and by what.

    A body without rows is returned as it is.
    """
    try:
        content = _decode(body)
    except msgspec.DecodeError:
        return body
    places = [(row, name) for row in _rows(content) for name in row if name in _NUMBERS]
    if not places:
        return body
    row, name = places[choice // len(ODD) % len(places)]
    row[name] = ODD[choice % len(ODD)]
    return _encode(content)


def _rows(content: Any) -> list[dict[str, Any]]:
    """Return the rows of a report, or the one row of a feed message."""
    data = content.get("data") if isinstance(content, dict) else None
    if isinstance(data, dict):
        return [data]
    return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
