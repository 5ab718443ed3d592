"""What was done to a market, in order, so that it can be done again.

A market that is given a journal notes every command before it obeys, with the time on its clock;
`replay` does the same to another market of the same beginnings (or to one restored from a
snapshot taken at that point) and ends in the same state. Refused commands are noted too, for
even a refusal can leave a mark (a repeated tag is counted).

Looking at a listing is a command where it changes something: it wakes the market maker.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from neo_async.exchange.engine.types import Change, Holding, Listing, NewOrder, Refusal
from neo_async.model.enums import Segment, Side

if TYPE_CHECKING:
    from neo_async.exchange.engine.matching_engine import Market


class OpenAccount(msgspec.Struct, frozen=True, tag=True, gc=False):
    account: str
    cash: int
    holdings: list[Holding]


class Place(msgspec.Struct, frozen=True, tag=True, gc=False):
    account: str
    order: NewOrder


class Modify(msgspec.Struct, frozen=True, tag=True, gc=False):
    account: str
    number: str
    change: Change


class Cancel(msgspec.Struct, frozen=True, tag=True, gc=False):
    account: str
    number: str


class Exit(msgspec.Struct, frozen=True, tag=True, gc=False):
    account: str
    number: str


class ReleaseAmo(msgspec.Struct, frozen=True, tag=True, gc=False):
    pass


class EndDay(msgspec.Struct, frozen=True, tag=True, gc=False):
    pass


class AddListings(msgspec.Struct, frozen=True, tag=True):
    listings: list[Listing]


class SettleExpired(msgspec.Struct, frozen=True, tag=True):
    pass


class PrintPrice(msgspec.Struct, frozen=True, tag=True, gc=False):
    segment: Segment
    token: str
    price: int


class SetQuotes(msgspec.Struct, frozen=True, tag=True, gc=False):
    segment: Segment
    token: str
    quotes: list[tuple[Side, int, int]]


class Look(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Somebody asked about a listing, which keeps its maker awake."""

    segment: Segment
    token: str


class Watch(msgspec.Struct, frozen=True, tag=True, gc=False):
    segment: Segment
    token: str


class Unwatch(msgspec.Struct, frozen=True, tag=True, gc=False):
    segment: Segment
    token: str


class Skip(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The makers passed over all turns up to this one: a pause was too long to catch up with."""

    turn: int


Command: TypeAlias = (
    OpenAccount
    | Place
    | Modify
    | Cancel
    | Exit
    | ReleaseAmo
    | EndDay
    | AddListings
    | SettleExpired
    | PrintPrice
    | SetQuotes
    | Look
    | Watch
    | Unwatch
    | Skip
)


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    now_ns: int
    """The market's clock when the command came."""
    command: Command


def apply(market: Market, command: Command) -> None:
    """Do one command. Raises Refusal as it did the first time."""
    match command:
        case OpenAccount(account, cash, holdings):
            market.open_account(account, cash=cash, holdings=holdings)
        case Place(account, order):
            market.place(account, order)
        case Modify(account, number, change):
            market.modify(account, number, change)
        case Cancel(account, number):
            market.cancel(account, number)
        case Exit(account, number):
            market.exit(account, number)
        case ReleaseAmo():
            market.release_amo()
        case EndDay():
            market.end_day()
        case AddListings(listings):
            market.add_listings(listings)
        case SettleExpired():
            market.settle_expired()
        case PrintPrice(segment, token, price):
            market.print_price(segment, token, price)
        case SetQuotes(segment, token, quotes):
            market.set_quotes(segment, token, quotes)
        case Look(segment, token) | Watch(segment, token) | Unwatch(segment, token):
            listing = market.listing_by_token(segment, token)
            if listing is None:
                raise Refusal(1009, f"no listing {segment.value}|{token} to look at")
            if isinstance(command, Watch):
                market.watch(listing)
            elif isinstance(command, Unwatch):
                market.unwatch(listing)
            else:
                market.day(listing)
        case Skip(turn):
            market.skip_turns(turn)


def replay(market: Market, entries: Iterable[Entry]) -> None:
    """Do what was done, at the times at which it was done. Nothing is noted meanwhile, and the
    events of the past are dropped."""
    journal, market.journal = market.journal, None
    try:
        for entry in entries:
            market.advance(entry.now_ns, catch_up=False)
            with suppress(Refusal):
                apply(market, entry.command)
    finally:
        market.journal = journal
    market.take_events()
    market.take_changes()
