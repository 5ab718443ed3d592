"""Quotes over REST: the path of a request, and the quotes of its answer.

Quotes have every number in a string.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote as percent_encoded

import msgspec

from neo_async.errors import UsageError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.indices import exact_index_name
from neo_async.model.market import Quote, QuoteFilter
from neo_async.model.ticks import DepthRow
from neo_async.wire.answers import failure, is_empty_book
from neo_async.wire.rows import check_row_count, read_object
from neo_async.wire.values import number_of, object_of, parse_json, text_of, time_of, whole_of

UNKNOWN_INSTRUMENT: Final = 1009
"""Code of the answer to a request in which no instrument is known to the broker."""

QUOTES_PER_CALL: Final = 50
"""Most instruments of one request."""

_SEGMENTS: Final = frozenset(Segment)

# Without control characters, and without halves of surrogate pairs, which no UTF-8 can carry.
_TOKEN: Final = re.compile(
    r"[^|,/\x00-\x1f\x7f\ud800-\udfff]{0,99}[^|,/\s\x00-\x1f\x7f\ud800-\udfff]"
)


def wire_instrument(instrument: object) -> str:
    """Return an instrument in the broker's notation, an index by its exact name.

    Raises UsageError when it is not `segment|token` of a known segment.
    """
    segment, _, token = instrument.partition("|") if isinstance(instrument, str) else ("", "", "")
    if segment not in _SEGMENTS or not _TOKEN.fullmatch(token):
        raise UsageError(
            f"instrument {instrument!r}: must be segment|token, such as 'nse_cm|1333', or "
            "segment|index, such as 'nse_cm|Nifty 50'"
        )
    return f"{segment}|{exact_index_name(segment, token) or token}"


def quotes_path(instruments: Iterable[str], filter: QuoteFilter) -> str:  # noqa: A002
    """Return the rest of the path, after the endpoint's. `|` and `,` are not encoded: the broker
    splits there."""
    listed = ",".join(percent_encoded(name, safe="|") for name in instruments)
    return f"/{listed}/{filter.value}"


def batches(instruments: Sequence[str]) -> list[list[str]]:
    """Cut instruments into as few requests as the broker allows."""
    starts = range(0, len(instruments), QUOTES_PER_CALL)
    return [list(instruments[start : start + QUOTES_PER_CALL]) for start in starts]


def read_quotes(answer: Answer) -> list[Quote]:
    """Return the quotes of `GET /script-details/1.0/quotes/neosymbol/…`."""
    content = parse_json(answer)
    if isinstance(content, dict) and "data" in content:
        read_object(answer)  # raises when it is not a success
        content = content["data"]
    if not isinstance(content, list):
        if is_empty_book(answer):
            return []
        raise failure(answer)
    check_row_count(content, answer)
    return [_quote(row) for row in content if isinstance(row, dict)]


def match_quotes(requested: Sequence[str], quotes: Sequence[Quote]) -> dict[str, Quote]:
    """Return the quotes by requested instrument; quotes of other instruments are dropped.

    Rows come in any order, and not always under the requested name: an index may have another case
    or its number, and the segment may be missing.
    """
    found = {_folded(quote.instrument): quote for quote in reversed(quotes)}
    tokens = Counter(_token(name) for name in requested)
    matched = {}
    for name in requested:
        quote = found.get(_folded(name))
        if quote is None and tokens[_token(name)] == 1:
            quote = found.get(f"|{_token(name)}")
        if quote is not None:
            matched[name] = msgspec.structs.replace(quote, instrument=name)
    return matched


def _folded(instrument: str) -> str:
    """Return an instrument in the form in which requested and received names are compared."""
    segment, _, token = instrument.casefold().partition("|")
    return f"{segment}|{exact_index_name(segment, token) or token}".casefold()


def _token(instrument: str) -> str:
    return _folded(instrument).partition("|")[2]


def _quote(row: Mapping[str, object]) -> Quote:
    ohlc = object_of(row.get("ohlc"))
    depth = object_of(row.get("depth"))
    return Quote(
        instrument=f"{text_of(row.get('exchange'))}|{text_of(row.get('exchange_token'))}",
        symbol=text_of(row.get("display_symbol")),
        last_update_time=time_of(row.get("lstup_time")),
        last_price=number_of(row.get("ltp")),
        last_quantity=whole_of(row.get("last_traded_quantity")),
        open=number_of(ohlc.get("open")),
        high=number_of(ohlc.get("high")),
        low=number_of(ohlc.get("low")),
        close=number_of(ohlc.get("close")),
        change=number_of(row.get("change")),
        change_percent=number_of(row.get("per_change")),
        average_price=number_of(row.get("avg_cost")),
        volume=whole_of(row.get("last_volume")),
        total_buy_quantity=whole_of(row.get("total_buy")),
        total_sell_quantity=whole_of(row.get("total_sell")),
        open_interest=whole_of(row.get("open_int")),
        lower_circuit=number_of(row.get("low_price_range")),
        upper_circuit=number_of(row.get("high_price_range")),
        year_high=number_of(row.get("year_high")),
        year_low=number_of(row.get("year_low")),
        bids=_depth(depth.get("buy")),
        asks=_depth(depth.get("sell")),
    )


_MOST_LEVELS: Final = 200
"""Most levels that are read of one side of a book. The broker sends five."""


def _depth(rows: object) -> tuple[DepthRow, ...]:
    """Return the levels of one side. The broker fills it up to five with levels without
    quantity."""
    if not isinstance(rows, list):
        return ()
    levels = []
    for row in map(object_of, rows[:_MOST_LEVELS]):
        price, quantity = number_of(row.get("price")), whole_of(row.get("quantity"))
        if price is not None and quantity:
            levels.append(DepthRow(quantity, price, whole_of(row.get("orders")) or 0))
    return tuple(levels)
