"""Holders of secrets: nothing that prints local variables or tracebacks shows their content."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

_CAUSES: Final = 20
"""Errors of a chain whose frames are dropped; longer chains are cut."""


class Hidden(msgspec.Struct, Generic[T], eq=False):
    """Holds a value that is or contains a secret: headers, a body, a token.

    Neither its `repr` nor rich shows the value, and it is no mapping, text or bytes that an error
    tracker would serialise. Code keeps the holder in local variables and takes `value` out of it
    only inside the expression that needs it.
    """

    value: T

    def __repr__(self) -> str:
        return "<hidden>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


def without_frames(error: BaseException) -> BaseException:
    """Return the error without the frames that it, its causes and its contexts went through.

    Frames of other libraries keep headers and bodies in their local variables, which tracebacks
    may show. Types and messages stay.
    """
    link: BaseException | None = error
    for _ in range(_CAUSES):
        if link is None:
            return error
        link.__traceback__ = None
        if link.__cause__ is not None and link.__context__ is not link.__cause__:
            link.__context__ = None  # not shown, but held
        link = link.__cause__ or link.__context__
    if link is not None:
        link.__traceback__ = link.__cause__ = link.__context__ = None
    return error
