"""aiohttp's connector, with what it lacks: connections have ended when it is closed, none is used
on which bytes lie unread, and the start of a request is counted when its connection is there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.connector import Connection

from neo_async.transport.unread import TURNS, unread_check

_TURNS_TO_END = 4
"""Turns of the event loop in which every connection has ended: an aborted one needs one, and one
that the server ended first, on which asyncio's abort has no effect, up to three."""


AT_CONNECTION: Final[ContextVar[Callable[[], Awaitable[object]] | None]] = ContextVar(
    "AT_CONNECTION", default=None
)
"""Called and awaited when there is a connection for the request of this context, before the request
is written."""


_TRIES: Final = 110
"""Connections that are tried for one request: as many as may lie idle, and some new ones."""


class NoSilence(aiohttp.ClientConnectionError):
    """Bytes came before the request on every connection. Nothing was sent."""


class Connector(aiohttp.TCPConnector):
    """A connector whose `close` ends every connection at once and returns when they have ended.

    aiohttp forgets a connection as soon as it has requested its end, and over TLS asyncio then
    waits up to 30 s for the server's close_notify: longer than a loop that is about to end.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, limit: int = 100) -> None:
        super().__init__(ssl=tls or True, limit=limit)
        # Transports of TLS connections, by aiohttp's protocol, which asyncio releases when one has
        # ended.
        self._transports: WeakKeyDictionary[asyncio.BaseProtocol, asyncio.Transport]
        self._transports = WeakKeyDictionary()

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """Return a connection on which nothing waits to be read: an answer that came before the
        request was written is not the answer to it. Raises NoSilence when there is none."""
        at_connection = AT_CONNECTION.get()
        for _ in range(_TRIES):
            connection = await super().connect(*args, **kwargs)
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None
            assert transport is not None
            if transport.get_extra_info("sslcontext") is not None:
                self._transports[protocol] = transport
            try:
                if at_connection is not None:
                    await at_connection()
                    at_connection = None
                if await _is_silent(protocol, transport):
                    return connection
            except BaseException:
                connection.release()  # nothing was written: another request may use it
                raise
            connection.close()
        raise NoSilence("it sends answers without a request")

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        # Without a parser, bytes that come on an idle connection close it before its next use,
        # also those that are only the beginning of an answer.
        if not should_close:
            protocol._parser = None
        super()._release(key, protocol, should_close=should_close)

    async def close(self, **options: Any) -> None:
        for transport in list(self._transports.values()):
            transport.abort()
        await super().close(**options)
        for _ in range(_TURNS_TO_END):
            await asyncio.sleep(0)


async def _is_silent(protocol: Any, transport: asyncio.Transport) -> bool:
    """Return whether nothing has come on a connection without a request. What lies in its socket is
    given a few turns of the loop to be read."""
    for _ in range(TURNS):
        if transport.is_closing() or protocol.should_close:
            return False
        if not unread_check(transport)():
            return True
        await asyncio.sleep(0)
    return False
