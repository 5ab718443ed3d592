"""Connections of aiohttp that are gone when their connector is closed, and to which a request waits
for its start."""

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
"""Of the loop, at most: an aborted connection needs one; one that the server ended first, and on
which asyncio's abort does nothing any more, needs up to three."""


AT_CONNECTION: Final[ContextVar[Callable[[], Awaitable[object]] | None]] = ContextVar(
    "AT_CONNECTION", default=None
)
"""Awaited when a connection is there for the request of this context, before it is written."""


_TRIES: Final = 110
"""Connections that are looked at for one request: as many as may lie idle, and some new ones."""


class NoSilence(aiohttp.ClientConnectionError):
    """No connection could be had on which the server does not speak unasked. Nothing was sent."""


class Connector(aiohttp.TCPConnector):
    """`close` ends every connection at once and returns when they have ended.

    aiohttp forgets a connection as soon as it has asked for its end, and over TLS asyncio then
    waits for the server's goodbye, up to 30 s: longer than a loop that is about to end.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, limit: int = 100) -> None:
        super().__init__(ssl=tls or True, limit=limit)
        # Of TLS connections, by aiohttp's protocol, which asyncio lets go of when one has ended.
        self._transports: WeakKeyDictionary[asyncio.BaseProtocol, asyncio.Transport]
        self._transports = WeakKeyDictionary()

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """A connection on which nothing waits to be read: an answer that came before the request
        was written is not the answer to it. Raises NoSilence when the server leaves none."""
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
                connection.release()  # it is as good as before
                raise
            connection.close()
        raise NoSilence("it sends answers that nobody asked for")

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
    """Whether nothing has come on a connection that no request is on; what lies in its socket is
    given a few turns of the loop to be read."""
    for _ in range(TURNS):
        if transport.is_closing() or protocol.should_close:
            return False
        if not unread_check(transport)():
            return True
        await asyncio.sleep(0)
    return False
