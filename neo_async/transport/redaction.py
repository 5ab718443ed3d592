"""Redaction: the secrets that were sent are taken out of the errors about the answer.

    with Secrets(api_key, access_token).kept_out_of_errors():
        return decode(answer)

A server that refuses a request may repeat it: header, form or query. Nothing is searched without an
error; when one leaves the block, its texts and those of its causes are.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import AnyStr, Final
from urllib.parse import quote, quote_plus

from neo_async.errors import NeoError

_MARK: Final = "***"

_SHORTEST: Final = 4
"""Characters of the shortest secret; shorter values occur in any text."""
_LONG: Final = 8
"""Characters from which on a secret is found anywhere; a shorter one only as a word of its own, so
that an MPIN is not cut out of an order number."""
_CAUSES: Final = 20
"""Errors of a chain that are searched; longer chains are cut."""


class Secrets:
    """Values that were sent to a server. None of them is in its `repr`.

    Each is found as it is, percent-encoded and escaped for JSON, in capitals or not. The beginning
    of a long one is enough, its first third and 8 characters at least, for an excerpt of an answer
    may end in the middle of it.
    """

    __slots__ = ("_forms", "_pattern", "_values")

    def __init__(self, *values: str) -> None:
        """Empty values are left out."""
        self._values = values
        self._pattern: re.Pattern[str] | None = None
        self._forms: list[str] = []

    def __repr__(self) -> str:
        return f"<Secrets, {len(self._values)} values>"

    def __rich_repr__(self) -> list[str]:
        return []

    @contextlib.contextmanager
    def kept_out_of_errors(self) -> Iterator[None]:
        """Surround the decoding of an answer: a NeoError that leaves the block holds no secret."""
        try:
            yield
        except NeoError as error:
            self.scrub_error(error)
            raise

    def scrub_error(self, error: NeoError) -> None:
        """Take the secrets out of the texts of an error, of its causes and of its contexts."""
        self._scrub_chain(error)

    def scrub(self, text: AnyStr) -> AnyStr:
        """Return a text, or the bytes of one, with `***` for each secret, in time linear in its
        length."""
        if isinstance(text, bytes):
            return self._scrub(text.decode("utf-8", "surrogateescape")).encode(
                "utf-8", "surrogateescape"
            )
        return self._scrub(text)

    def _scrub(self, text: str) -> str:
        if self._pattern is None:
            self._forms = list(
                dict.fromkeys(form for value in self._values for form in _forms(value))
            )
            # Of two that begin alike the longer one is tried first.
            self._forms.sort(key=len, reverse=True)
            self._pattern = re.compile("|".join(map(_start, self._forms)) or "(?!)", re.IGNORECASE)
        pieces: list[str] = []
        done = 0
        while (found := self._pattern.search(text, done)) is not None:
            pieces += text[done : found.start()], _MARK
            start = found.start()
            done = max(found.end(), *(_common_end(text, start, form) for form in self._forms))
        return "".join((*pieces, text[done:])) if pieces else text

    def _scrub_chain(self, first: BaseException) -> None:
        error = first
        for _ in range(_CAUSES):
            error.args = tuple(map(self._scrubbed, error.args))
            for name, value in list(vars(error).items()):
                if (scrubbed := self._scrubbed(value)) is not value:
                    setattr(error, name, scrubbed)
            shown = None if error.__suppress_context__ else error.__context__
            following = error.__cause__ or shown
            if following is None:
                error.__context__ = None  # not shown by a traceback, but held
                return
            error = following
        error.__cause__ = error.__context__ = None

    def _scrubbed(self, value: object) -> object:
        return self._scrub(value) if isinstance(value, str) else value


def _forms(value: str) -> Iterator[str]:
    """Yield the ways in which an answer may write a value."""
    if len(value) >= _SHORTEST:
        yield value
        yield quote(value, safe="")
        yield quote_plus(value)
        yield value.replace("/", r"\/")
        yield value.replace("\\", r"\\").replace('"', r"\"")


def _start(form: str) -> str:
    """Return a pattern for a secret, or for as much of its beginning as is worth hiding."""
    if len(form) < _LONG:
        return rf"(?<!\w){re.escape(form)}(?!\w)"
    return re.escape(form[: max(_LONG, len(form) // 3)])


def _common_end(text: str, start: int, form: str) -> int:
    """Return the index in a text at which what it has in common with a secret ends."""
    end = start
    for letter in form:
        if end == len(text) or text[end].lower() != letter.lower():
            break
        end += 1
    return end
