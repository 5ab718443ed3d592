"""HTTP calls that are no order requests: login, reports, quotes, files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from neo_async.errors import AnswerLost, NotSent, ProtocolError
from neo_async.model.address import address_problem, shown_address, uses_tls
from neo_async.model.answer import Answer
from neo_async.transport.breaker import GATEWAY_FAILURES, Breaker, Breakers
from neo_async.transport.connector import AT_CONNECTION, Connector, NoSilence
from neo_async.transport.hidden import Hidden, without_frames
from neo_async.transport.inflating import Inflater
from neo_async.transport.kinds import Kind
from neo_async.transport.meter import Meter
from neo_async.transport.start import Start

_LONGEST = 120
"""Characters of an address in an error message; a path may name fifty instruments."""


LARGEST_ANSWER: Final = 32 << 20
"""Bytes of an answer that is read whole, decompressed; an order book of ten thousand has 10 MB."""
LARGEST_FILE: Final = 1 << 30
"""Bytes of a downloaded file, decompressed."""

_REDIRECTS: Final = 5
"""Redirects that one download follows."""

_ENDED_EARLY: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)

_CAUSES: Final = 5
"""Errors of a chain among which the first cause is looked for."""

_BYTES_A_TURN: Final = 512 << 10
"""Bytes that are decompressed in one turn of the event loop."""


class Download(NamedTuple):
    """A file whose answer has begun."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    size: int | None
    """Bytes of the file; None where the server does not send it, or compresses the file."""
    pieces: AsyncIterator[bytes]
    """Content of the file, in pieces as they arrive."""


class _Request(NamedTuple):
    """A request with its secrets; passed on in a `Hidden` only."""

    method: str
    url: URL
    headers: Mapping[str, str] | None
    body: bytes = b""
    params: Mapping[str, str] | None = None


class _Timing:
    """Times of one request, filled in by aiohttp's tracing."""

    def __init__(self, kind: int, queued: float) -> None:
        self.kind = kind
        self.queued = queued
        self.began = self.sent_at = time.perf_counter()
        self.is_first = False
        """Whether the request is the first one on its connection."""


class _Call(NamedTuple):
    """The name of a request in errors, and its timeout."""

    method: str
    where: str
    """Address without a query."""
    timeout: float
    """Seconds until the whole answer must be there."""

    def failure(self, error: BaseException) -> BaseException:
        """Return the error that a caller gets for one of aiohttp's, with the cause that may be
        shown.

        aiohttp's errors about an answer repeat parts of it, which may repeat what was sent, and
        hold the request's headers: only their names are kept. Other errors, such as a
        cancellation, are returned as they are, without their frames.
        """
        name = f"{self.method} {self.where}"
        without_frames(error)
        failure: Exception
        match error:
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError() | NoSilence():
                failure = NotSent(f"cannot connect to {self.where}: {connect_problem(error)}")
                failure.__cause__ = error
            case TimeoutError():
                text = f"no complete answer to {name} within {self.timeout:g} s"
                failure = AnswerLost(text, is_timeout=True)
                failure.__cause__ = error
            case aiohttp.ClientResponseError():
                failure = AnswerLost(f"the answer to {name} was no HTTP: {_first_cause(error)}")
            case ValueError():  # raised by Inflater
                failure = AnswerLost(f"the answer to {name} cannot be used: {error}")
            case aiohttp.ClientError() | OSError():
                cause = error.cause if isinstance(error, _SentOnce) else error
                failure = AnswerLost(f"the answer to {name} was lost: {_lost_by(cause)}")
            case _:
                return error
        return failure


class HttpClient:
    """An aiohttp session, made when first needed. Raises the same errors as the order lane."""

    def __init__(
        self,
        *,
        connect_timeout: float,
        tls: ssl.SSLContext | None = None,
        breakers: Breakers | None = None,
        meter: Meter | None = None,
        insecure: bool = False,
    ) -> None:
        """`insecure` allows downloads to be redirected to plain http on other machines."""
        self._insecure = insecure
        self._breakers = breakers or Breakers()
        self._meter = meter or Meter()
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def check(self, url: str) -> None:
        """Raise BreakerOpen when no call to the host may be made now: before a caller queues."""
        breaker = self._breaker(_place(URL(url, encoded=True)))
        if not breaker.is_closed:
            await asyncio.sleep(0)  # a caller that tries for ever must not hold up the loop
            breaker.check()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        body: bytes = b"",
        params: Mapping[str, str] | None = None,
        kind: int = Kind.READ,
        start: Start | None = None,
        limit: int = LARGEST_ANSWER,
    ) -> Answer:
        """Send one request and read its whole answer, `timeout` seconds and `limit` bytes at most.
        The path of `url` is sent as it is: the broker wants characters in it that are usually
        encoded. `kind` is for the meter; a `start` is moved to when there is a connection, since a
        handshake takes time.

        Redirects are not followed: the headers carry credentials. A request that may change
        something is sent once at most. Raises NotSent or AnswerLost.
        """
        address = URL(url, encoded=True)
        where, place = _origin(url), _place(address)
        request = Hidden(_Request(method, address, headers, body, params))
        del url, address, headers, body, params  # tracebacks may show local variables
        timing = _Timing(kind, 0.0 if start is None else start.queued)
        call = _Call(method, where, timeout)
        with (
            self._watched(place) as breaker,
            _at_connection(None if start is None else start.at_connection),
        ):
            try:
                answer = await self._exchange(request, call, limit, timing, start)
            except BaseException as error:
                failure = call.failure(error)
                raise failure from failure.__cause__
            self._count_answer(breaker, answer.status)
            return answer

    async def _exchange(
        self,
        request: Hidden[_Request],
        call: _Call,
        limit: int,
        timing: _Timing,
        start: Start | None,
    ) -> Answer:
        async with self._opened().request(
            request.value.method,
            request.value.url,
            headers=request.value.headers,
            data=request.value.body or None,
            params=request.value.params,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=call.timeout, sock_connect=self._connect_timeout),
            middlewares=() if request.value.method == "GET" else (_once,),
            trace_request_ctx=timing,
        ) as response:
            first_byte = time.perf_counter() - timing.sent_at
            if timing.is_first and start is not None:
                start.answered_late()
            pieces = [piece async for piece in _content(response, limit, call)]
            content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            return Answer(response.status, _lower(response.headers), content, first_byte)

    @contextlib.asynccontextmanager
    async def download(
        self,
        url: str,
        *,
        timeout: float,
        between: float,
        headers: Mapping[str, str] | None = None,
        limit: int = LARGEST_FILE,
    ) -> AsyncIterator[Download]:
        """Get a file of `limit` bytes at most within `timeout` seconds, `between` at most between
        two pieces of it. Redirects are followed only without `headers`, which may hold secrets, and
        only to addresses that would be allowed themselves: from https to https.

        Raises NotSent or AnswerLost, and ProtocolError for a redirect that is not followed."""
        where, until = _origin(url), time.monotonic() + timeout
        request = Hidden(_Request("GET", URL(url), headers))
        place, follows = _place(request.value.url), headers is None
        del url, headers  # tracebacks may show local variables
        for _ in range(_REDIRECTS + 1):
            patience = aiohttp.ClientTimeout(
                total=max(0.001, until - time.monotonic()),
                sock_connect=self._connect_timeout,
                sock_read=between,
            )
            call = _Call("GET", where, timeout)
            with self._watched(place) as breaker:
                try:
                    response = await self._opened().get(
                        request.value.url,
                        headers=request.value.headers,
                        allow_redirects=False,
                        timeout=patience,
                    )
                except BaseException as error:
                    failure = call.failure(error)
                    raise failure from failure.__cause__
                async with response:
                    self._count_answer(breaker, response.status)
                    target = response.headers.get("Location", "") if follows else ""
                    if not target or response.status not in (301, 302, 303, 307, 308):
                        is_plain = "Content-Encoding" not in response.headers
                        yield Download(
                            response.status,
                            _lower(response.headers),
                            response.content_length if is_plain else None,
                            _content(response, limit, call),
                        )
                        return
            request = Hidden(
                request.value._replace(url=self._redirected(request.value.url, target))
            )
            where, place = _origin(str(request.value.url)), _place(request.value.url)
        raise ProtocolError(f"GET {where}: more than {_REDIRECTS} redirects")

    def _redirected(self, url: URL, target: str) -> URL:
        """Return where a redirect leads. Raises ProtocolError when it must not be followed."""
        try:
            following = url.join(URL(target))
        except ValueError:
            problem = "it is no address"
        else:
            problem = address_problem(
                str(following), tls_only=uses_tls(str(url)), insecure=self._insecure
            )
            target = str(following)
            if not problem:
                return following
        raise ProtocolError(
            f"GET {_origin(str(url))} is redirected to {shown_address(target)}: {problem}"
        )

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _breaker(self, place: str) -> Breaker:
        return self._breakers.reads(place)

    @contextlib.contextmanager
    def _watched(self, place: str) -> Iterator[Breaker]:
        """Surround a call, and count its failure. Raises BreakerOpen where none may be made."""
        breaker = self._breaker(place)
        is_probe = breaker.admit()
        try:
            yield breaker
        except AnswerLost as error:
            self._meter.lost(error)
            breaker.failed(str(error), connected=True)
            raise
        except NotSent as error:
            breaker.failed(str(error), connected=False)
            raise
        finally:
            if is_probe:
                breaker.probed()

    def _count_answer(self, breaker: Breaker, status: int) -> None:
        if status >= 500:
            self._meter.server_errors += 1
        if status in GATEWAY_FAILURES:
            breaker.failed(f"answered with HTTP {status}", connected=True)
        else:
            breaker.answered()

    async def _note_connected(
        self,
        session: aiohttp.ClientSession,
        context: types.SimpleNamespace,
        parameters: aiohttp.TraceConnectionCreateEndParams,
    ) -> None:
        timing = context.trace_request_ctx
        if timing is not None:  # downloads have none
            timing.is_first = True

    async def _note_sent(
        self,
        session: aiohttp.ClientSession,
        context: types.SimpleNamespace,
        parameters: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        timing = context.trace_request_ctx
        if timing is not None:  # downloads have none
            timing.sent_at = time.perf_counter()
            self._meter.sent(timing.kind, timing.queued, timing.sent_at - timing.began)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(self._note_connected)
        tracing.on_request_headers_sent.append(self._note_sent)
        return aiohttp.ClientSession(
            trace_configs=[tracing],
            connector=Connector(tls=self._tls, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "gzip, deflate"},
            auto_decompress=False,  # `_content` decompresses, up to a limit
        )


class _SentOnce(aiohttp.ClientError):
    """Raised in place of aiohttp's own errors, so that it sends nothing twice.

    aiohttp sends PUT and DELETE again when a connection breaks, since they are idempotent. A caller
    that gets a refusal of the second one could not see that the first one had worked.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _SentOnce(error) from error


@contextlib.contextmanager
def _at_connection(call: Callable[[], Awaitable[object]] | None) -> Iterator[None]:
    token = AT_CONNECTION.set(call)
    try:
        yield
    finally:
        AT_CONNECTION.reset(token)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def _content(
    response: aiohttp.ClientResponse, limit: int, call: _Call
) -> AsyncIterator[bytes]:
    """Yield the content of an answer as it arrives, decompressed. It holds the event loop for a
    millisecond or two at once, whatever the compression ratio. Raises AnswerLost."""
    try:
        if (response.content_length or 0) > limit:
            raise ValueError(f"it is longer than {limit} bytes")
        inflater = Inflater(response.headers.get("Content-Encoding", ""))
        total = since_turn = 0
        async for received in response.content.iter_any():
            for piece in inflater.feed(received):
                total += len(piece)
                since_turn += len(piece)
                if total > limit:
                    raise ValueError(f"it is longer than {limit} bytes")
                if since_turn > _BYTES_A_TURN:
                    since_turn = 0
                    await asyncio.sleep(0)
                yield piece
        inflater.finish()
    except BaseException as error:
        response.close()  # else aiohttp would wait for the rest of it
        failure = call.failure(error)
        raise failure from failure.__cause__


def _lost_by(error: Exception) -> str:
    """Return what ended an answer. Only the name of an aiohttp error is shown: its text may repeat
    the answer."""
    name = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return f"{name}: the server ended it early" if isinstance(error, _ENDED_EARLY) else name


def _first_cause(error: BaseException) -> str:
    """Return the name of the error that led to this one, such as BadStatusLine."""
    for _ in range(_CAUSES):
        if error.__cause__ is None:
            break
        error = error.__cause__
    return type(error).__name__


def connect_problem(error: Exception) -> str:
    """Return why no connection was made, without the address that aiohttp's own text repeats."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(error)
    cause = error.os_error
    if cause.errno is None or isinstance(cause, (ssl.SSLError, socket.gaierror)):
        return cause.strerror or str(cause)
    # asyncio gives failed connections a text of its own, without the reason.
    return os.strerror(cause.errno)


def _place(url: URL) -> str:
    return f"{url.host}:{url.port}"


def _origin(url: str) -> str:
    """Return scheme, host and path, shortened for a message, without the query, which may hold
    private data."""
    origin = url.partition("?")[0]
    return origin if len(origin) <= _LONGEST else f"{origin[:_LONGEST]}…"
