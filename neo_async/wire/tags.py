"""The client tag, by which an order is found when the answer to its placement is lost.

It is sent as `ig` and comes back as `GuiOrdId`. The broker refuses a tag it has seen that day, so
every placement has a new one: `<caller's own tag>_<nonce><counter>`, or without the first part when
the caller gave none. Length and alphabet are not documented; this client uses up to 20 of
[A-Za-z0-9_]. There is no dash in it, because the broker appends `-<seconds>` after a cancel.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from itertools import chain, count, product

from neo_async.errors import InvalidOrder

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_NONCE = 6
_COUNTER = 4
OWN_TAG_LENGTH = 20 - _NONCE - _COUNTER - 1

_OWN_TAG = re.compile(rf"[A-Za-z0-9_]{{0,{OWN_TAG_LENGTH}}}")


class TagMaker:
    """Makes tags that are unique in the account and day: two processes share a nonce once in 36**6
    pairs."""

    def __init__(self) -> None:
        self._nonce = "".join(secrets.choice(_ALPHABET) for _ in range(_NONCE))
        self._counter = _count()

    def make(self, own: str = "") -> str:
        """Return a new client tag with the caller's own part. Raises InvalidOrder when that is
        malformed."""
        if own == "":
            return self._nonce + next(self._counter)
        if not (isinstance(own, str) and _OWN_TAG.fullmatch(own)):
            raise InvalidOrder(
                "tag", own, f"must be at most {OWN_TAG_LENGTH} characters of [A-Za-z0-9_]"
            )
        return f"{own}_{self._nonce}{next(self._counter)}"

    def has_made(self, client_tag: str) -> bool:
        """Return whether a client tag is one of these."""
        return client_tag.rpartition("_")[2].startswith(self._nonce)


def own_tag(client_tag: str) -> str:
    """Return the caller's own part of a client tag."""
    return client_tag.rpartition("_")[0]


def matches(gui_order_id: str, client_tag: str) -> bool:
    """Return whether a row's `GuiOrdId` is this tag, with or without the suffix of a cancel."""
    return gui_order_id == client_tag or gui_order_id.startswith(client_tag + "-")


def without_suffix(gui_order_id: str) -> str:
    """Return the client tag of a row's `GuiOrdId`, without the suffix that a cancel appends."""
    return gui_order_id.partition("-")[0]


def _count() -> Iterator[str]:
    """Return an iterator of `0000`, `0001` … `zzzz`, then texts of five digits and more."""
    return map("".join, chain.from_iterable(product(_ALPHABET, repeat=n) for n in count(_COUNTER)))
