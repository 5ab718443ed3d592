"""An HTTP/1.1 connection that carries one request at a time.

Its reason to exist is certainty: a request either failed before its bytes were handed to the
socket (`NotSent`), or it was handed over and got a complete answer, or it was handed over and the
answer is lost (`AnswerLost`). There is no fourth case, and no pipelining.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import cast

import httptools

from neo_async.errors import AnswerLost, NotSent
from neo_async.model.answer import Answer
from neo_async.transport.hidden import Hidden
from neo_async.transport.inflating import inflated
from neo_async.transport.unread import unread_check

TIMER_TOLERANCE = 0.001
"""Seconds by which a timer of the loop may be early."""

MAX_BODY = 256 << 10
"""Bytes of the largest answer to an order request that is read; the real ones have 60."""
MAX_HEAD = 64 << 10
"""Bytes of its headers."""
MAX_HEADERS = 200
MAX_INTERIM = 20
"""Interim answers (1xx) before the final one."""

_MAX_RECEIVED = MAX_BODY + 2 * MAX_HEAD
"""Bytes of one answer as they come, with all that is around its content."""


class _TooMuch(Exception):
    """Ends the parsing of an answer."""


class RawHeaders(Mapping[str, str]):
    """Headers as they came, decoded when they are first read: those of an order's answer are not,
    unless something is wrong."""

    __slots__ = ("_raw", "_text")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._text: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, str]:
        if self._text is None:
            self._text = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._raw
            }
        return self._text


class Connection(asyncio.Protocol):
    """A connection: calls `on_idle` when it is ready for the next request, and `on_lost` once, when
    it is gone."""

    __slots__ = (
        "_body",
        "_encoding",
        "_first_byte_at",
        "_framed",
        "_headers",
        "_interim",
        "_loop",
        "_on_idle",
        "_on_lost",
        "_parser",
        "_received",
        "_sent_at",
        "_size",
        "_status",
        "_timeout",
        "_timer",
        "_timer_at",
        "_transport",
        "_turn",
        "_until",
        "has_unread",
        "opened_at",
        "requests",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._turn: asyncio.Future[Answer | None] | None = None
        """Gets the answer that is awaited; None while none is."""
        self._until = self._timeout = 0.0
        """Loop time at which the answer counts as lost, and the seconds that the error names."""
        self._timer: asyncio.TimerHandle | None = None
        """Calls `_expire` at `_timer_at`, or earlier than the answer is due: it is left alone from
        one request to the next, since setting one costs more than looking once in ten seconds."""
        self._timer_at = math.inf
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._received = 0
        self._interim = 0
        self._status = 0
        self._framed = False
        self._encoding = ""
        self._sent_at = self._first_byte_at = 0.0
        self.opened_at = 0.0
        """Loop time at which it stood."""
        self.requests = 0
        """Requests handed to the socket so far."""
        self.has_unread: Callable[[], object] = bool
        """Function that returns something true while bytes, or the end of the stream, wait to be
        read. It may be called only while the connection is usable."""

    @property
    def is_usable(self) -> bool:
        """Whether a request can be sent: the connection is open, and no answer is awaited."""
        return (
            self._transport is not None and not self._transport.is_closing() and self._turn is None
        )

    def is_clear(self) -> bool:
        """Return whether a request may be written in this moment: the connection is usable, and
        nothing is unread on it. Bytes that came before a request are not the answer to it."""
        return self.is_usable and not self.has_unread()

    def send(
        self,
        data: Hidden[bytes],
        turn: asyncio.Future[Answer | None],
        until: float,
        timeout: float,
    ) -> None:
        """Send one whole request. `turn` gets its whole answer, or AnswerLost: at the loop time
        `until`, after `timeout` seconds, at the latest.

        Raises NotSent when the connection was closing already. A caller that stops waiting has to
        call `give_up`.
        """
        transport = self._transport
        if transport is None or transport.is_closing() or self._turn is not None:
            raise NotSent("the connection was closed before the request was handed to it")
        self._turn = turn
        self._until, self._timeout = until, timeout
        self.requests += 1
        self._received = self._interim = 0
        self._first_byte_at = 0.0
        self._sent_at = perf_counter()
        transport.write(data.value)
        if until < self._timer_at:
            self._set_timer(until)

    def give_up(self, turn: asyncio.Future[Answer | None]) -> None:
        """Close the connection where the answer for `turn` is still to come, so that it is not
        taken for another's. The connection may carry the next request already."""
        if self._turn is turn:
            self._turn = None
            self.close()

    def close(self) -> None:
        """Close at once; a request that still waits raises AnswerLost."""
        if self._transport is not None:
            self._transport.abort()

    # --- called by asyncio -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance check: uvloop's transports derive from nothing of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.opened_at = self._loop.time()
        self.has_unread = unread_check(transport)

    def data_received(self, data: bytes) -> None:
        if self._turn is None:
            # An answer without a request (a 408 before the server closes, or the tail of a broken
            # one) must never be taken for the next request's answer.
            self.close()
            return
        if not self._first_byte_at:
            self._first_byte_at = perf_counter()
        self._received += len(data)
        if self._received > _MAX_RECEIVED:
            self._fail(f"the answer is longer than {MAX_BODY} bytes")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the answer switches to another protocol")
        except httptools.HttpParserError as error:
            too_much = error.__context__ if isinstance(error.__context__, _TooMuch) else None
            self._fail(str(too_much) if too_much else f"the answer is not HTTP: {error}")
        else:
            if self.is_usable:
                # Only now, when all that came has been read: the next request is written at once,
                # and a second answer in the same packet must not count as its answer.
                self._on_idle(self)
            # The parser keeps the beginning of an endless line, and puts it together anew.
            elif not self._status and self._turn is not None and self._received > MAX_HEAD:
                self._fail(f"the headers of the answer are longer than {MAX_HEAD} bytes")

    def eof_received(self) -> None:
        # Without Content-Length and chunks, the end of the stream is the end of the answer.
        if self._turn is not None and self._status and not self._framed:
            self._complete(keep=False)

    def connection_lost(self, error: Exception | None) -> None:
        if self._turn is not None:
            progress = "in the middle of the answer" if self._status else "before any answer"
            reason = f": {error}" if error else ""
            self._fail(f"the connection was closed {progress}{reason}")
        if self._timer is not None:
            self._timer.cancel()
        self._on_lost(self)

    # --- called by the parser --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._turn is None:  # a second answer behind that to the request
            self.close()
        self._status = 0
        self._headers = []
        self._body = []
        self._size = 0
        self._framed = False
        self._encoding = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        if len(self._headers) > MAX_HEADERS:
            raise _TooMuch(f"the answer has more than {MAX_HEADERS} headers")
        length = len(name)
        if length in (14, 17) and name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif length == 16 and name.lower() == b"content-encoding":
            self._encoding = value[:40].decode("latin-1").lower()

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            self._fail(f"the answer is longer than {MAX_BODY} bytes")
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._status < 200:
            self._status = 0  # 1xx are not answers: the real one follows
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise _TooMuch(f"more than {MAX_INTERIM} interim answers came before the answer")
        elif self._turn is not None:
            self._complete(keep=self._parser.should_keep_alive())

    # ------------------------------------------------------------------------------------------

    def _complete(self, *, keep: bool) -> None:
        turn, self._turn = self._turn, None
        status, self._status = self._status, 0
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._encoding:
            try:
                body = inflated(body, self._encoding, MAX_BODY)
            except ValueError as error:
                self._turn = turn
                self._fail(f"the answer cannot be decompressed: {error}")
                return
        assert turn is not None
        if not turn.done():
            first_byte = self._first_byte_at - self._sent_at
            turn.set_result(Answer(status, RawHeaders(self._headers), body, first_byte))
        if not keep:
            self.close()

    def _fail(self, reason: str, *, is_timeout: bool = False) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_exception(AnswerLost(reason, is_timeout=is_timeout))
        self.close()

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        """Give up on an answer that is due; look again when the one that is awaited will be."""
        self._timer, self._timer_at = None, math.inf
        if self._turn is None:
            return  # the next request sets a timer
        if self._until > self._loop.time() + TIMER_TOLERANCE:
            self._set_timer(self._until)
        else:
            text = f"no complete answer within {self._timeout:g} s"
            self._fail(text, is_timeout=True)
