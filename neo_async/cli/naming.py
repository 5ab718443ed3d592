"""Names of instruments in the shell."""

from __future__ import annotations

from neo_async.errors import UsageError
from neo_async.model.enums import Segment


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
