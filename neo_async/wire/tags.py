"""The client tag, by which an order is found when the answer to its placement is lost.

It is sent as `ig` and comes back as `GuiOrdId`. The broker refuses a tag it has seen that day, so
every placement has a new one: `<caller's own tag>_<nonce><counter>`, or without the first part when
the caller gave none. Length and alphabet are not documented; this client uses up to 20 of
[A-Za-z0-9_]. There is no dash in it, because the broker appends `-<seconds>` after a cancel.

An exit plan puts its id and the number of the step into the caller's part, behind an underscore.
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


PLAN_ID_LENGTH = 5
_PLAN_TAG = re.compile(rf"_([0-9a-z]{{{PLAN_ID_LENGTH}}})([0-9a-z]{{1,3}})")


def exit_tag(plan: str, step: int) -> str:
    """Return the caller's part of the client tag of an exit order: the plan's id and the step.

    It begins with an underscore, so that it is not taken for a tag that a program has chosen.
    """
    return f"_{plan}{_base36(step)}"


def entry_tag(plan: str) -> str:
    """Return the caller's part of the client tag of the entry order: that of step 0."""
    return exit_tag(plan, 0)


def step_of(tag: str) -> tuple[str, int] | None:
    """Return the plan's id and the step of such a tag; None for any other."""
    found = _PLAN_TAG.fullmatch(tag)
    return None if found is None else (found[1], int(found[2], 36))


def is_exit(client_tag: str) -> bool:
    """Return whether an order with this client tag is an exit order of a plan."""
    found = step_of(own_tag(client_tag))
    return found is not None and found[1] > 0


def _base36(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _ALPHABET[digit] + text
        if not number:
            return text


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
