"""The commands of the matching engine: everything that changes it but for the passing of time.

`MatchingEngine.execute` notes a command in the journal before it applies it, with the time on its
clock; replay.py executes a journal again. Refused commands are noted too, for even a refusal can
leave a trace (a repeated client tag is counted).

Reading an instrument is a command where it changes something: it activates the market maker.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from neo_async.exchange.engine.types import Change, Holding, Listing, NewOrder, Rules
from neo_async.model.enums import Segment, Side


class OpenAccount(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Open an account with cash, in paise, and holdings."""

    account: str
    cash: int
    holdings: list[Holding]


class Place(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Place an order."""

    account: str
    order: NewOrder


class Modify(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Modify an order."""

    account: str
    number: str
    change: Change


class Cancel(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Cancel an order."""

    account: str
    number: str


class Exit(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Exit a cover or bracket order, named by its entry or by a contingent order."""

    account: str
    number: str


class ReleaseAmo(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Release the queued after-market orders."""


class EndDay(msgspec.Struct, frozen=True, tag=True, gc=False):
    """End the day in all segments."""


class AddListings(msgspec.Struct, frozen=True, tag=True):
    """List instruments that are not listed yet."""

    listings: list[Listing]


class SettleExpired(msgspec.Struct, frozen=True, tag=True):
    """Settle positions in expired contracts."""


class PrintPrice(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Print a trade at a price from outside."""

    segment: Segment
    token: str
    price: int
    quantity: int = 0
    """Units traded; 0 moves the price and nothing else."""


class SetQuotes(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Replace the quotes, as (side, price, quantity), of a listing without a market maker."""

    segment: Segment
    token: str
    quotes: list[tuple[Side, int, int]]


class Use(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Use an instrument, as by reading it, which keeps its market maker active."""

    segment: Segment
    token: str


class Watch(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Keep an instrument active and report its changes."""

    segment: Segment
    token: str


class Unwatch(msgspec.Struct, frozen=True, tag=True, gc=False):
    """End one `Watch`."""

    segment: Segment
    token: str


class SetRules(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Change the rules for orders that come from now on; the hours stay."""

    rules: Rules


class SkipTurns(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Skip all turns of the market makers up to this one, after a pause too long to catch up."""

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
    | Use
    | Watch
    | Unwatch
    | SetRules
    | SkipTurns
)


class JournalEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command, and when it was executed."""

    now_ns: int
    """Time of the engine's clock when the command came."""
    command: Command
