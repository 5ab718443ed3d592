"""Choosing an option by its expiry in words and its distance from the money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, TypeAlias

from neo_async.errors import UsageError
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument, StrikeRow
from neo_async.wire.values import check_day

ExpiryChoice: TypeAlias = date | str | int
"""An expiry: a date, as `2026-12-08` too; a number, 0 for the nearest and 1 for the one after it;
or `this week`, `next week`, `this month`, `next month`: the last expiry of that calendar week or
month."""

_CASH: Final = {Segment.NSE_FO: Segment.NSE_CM, Segment.BSE_FO: Segment.BSE_CM}
"""Segments in which underlyings trade, by the segment of their contracts."""
_LISTED: Final = 6
"""Most expiries that an error lists."""
_PERIODS: Final = ("this week", "next week", "this month", "next month")


def choose_expiry(name: str, expiries: Sequence[date], choice: ExpiryChoice, today: date) -> date:
    """Return the expiry of an underlying that is meant, of those that are ascending. Raises
    UsageError that lists the coming ones when there is none."""
    coming = [one for one in expiries if one >= today]
    if isinstance(choice, int):
        if choice is not True and 0 <= choice < len(coming):
            return coming[choice]
    elif isinstance(choice, str) and " ".join(choice.lower().split()) in _PERIODS:
        first, last = _period(" ".join(choice.lower().split()), today)
        if within := [one for one in coming if first <= one <= last]:
            return within[-1]
    elif (day := check_day("expiry", choice)) in expiries:
        return day
    listed = ", ".join(map(str, coming[:_LISTED])) or "none"
    more = " …" if len(coming) > _LISTED else ""
    shown = repr(choice) if isinstance(choice, str | int) else str(choice)
    raise UsageError(f"expiry={shown}: {name} has {listed}{more}")


def choose_option(
    rows: Sequence[StrikeRow], option_type: str, spot: float, strikes_out: int
) -> Instrument:
    """Return the option that is some strikes out of the money; negative numbers are in the money.
    Raises UsageError when there are not so many strikes."""
    at_the_money = min(range(len(rows)), key=lambda place: abs(rows[place].strike - spot))
    place = at_the_money + (strikes_out if option_type == "CE" else -strikes_out)
    option = None
    if 0 <= place < len(rows):
        option = rows[place].call if option_type == "CE" else rows[place].put
    if option is None:
        first, last = rows[0].strike, rows[-1].strike
        raise UsageError(
            f"strikes_out={strikes_out}: no {option_type} so far from {rows[at_the_money].strike:g}"
            f", the strike at the money; strikes are {first:g} to {last:g}"
        )
    return option


def underlying_key(contracts: Sequence[Instrument]) -> str:
    """Return the key of what gives the price of an underlying: the share or index, and of
    commodities and currencies, which do not trade themselves, the nearest future."""
    first = contracts[0]
    cash = _CASH.get(first.segment)
    if cash is not None and first.underlying_token:
        return f"{cash.value}|{first.underlying_token}"
    return next((one for one in contracts if one.kind.startswith("FUT")), first).key


def _period(words: str, today: date) -> tuple[date, date]:
    """Return the first and the last day of a calendar week, from Monday on, or of a month."""
    which, _, unit = words.partition(" ")
    if unit == "week":
        first = today - timedelta(days=today.weekday()) + timedelta(weeks=which == "next")
        return first, first + timedelta(days=6)
    first = today.replace(day=1)
    if which == "next":
        first = _next_month(first)
    return first, _next_month(first) - timedelta(days=1)


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)
