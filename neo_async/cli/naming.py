"""Names of instruments in the shell."""

from __future__ import annotations

from enum import StrEnum

import neo_async
from neo_async.cli import output
from neo_async.cli.connection import Account
from neo_async.client import NeoClient
from neo_async.errors import UsageError
from neo_async.model.enums import Segment, Side
from neo_async.model.instruments import Instrument


class SideName(StrEnum):
    """A side as commands take it."""

    BUY = "buy"
    SELL = "sell"

    @property
    def side(self) -> Side:
        return Side[self.name]


def read_listed(account: Account, segment: Segment, symbol: str) -> Instrument:
    """Return an instrument from the scrip master of its segment, which is downloaded once a day and
    needs no login. Raises UsageError for a symbol that is not in it."""

    async def find() -> Instrument:
        neo = NeoClient(account.credentials, endpoints=account.endpoints)
        try:
            with output.progress_bar(f"scrip master of {segment}", is_bytes=True) as show:
                await neo.instruments.load(segment, progress=lambda _, *so_far: show(*so_far))
            return neo.instruments[segment, symbol]
        finally:
            await neo.logout()

    return neo_async.run(find())


def instrument_name(text: str) -> str:
    """Return an instrument in the package's notation. Raises UsageError for an unknown segment.

    Users write a colon, because `|` has a meaning in the shell.
    """
    name = text if "|" in text else text.replace(":", "|", 1)
    segment, _, token = name.partition("|")
    if segment not in frozenset(Segment) or not token:
        raise UsageError(
            f"instrument {text!r}: must be segment and token, nse_cm:11536, or segment and index, "
            "'nse_cm:Nifty 50'; neo-async instruments nse_cm --search TCS shows tokens"
        )
    return name
