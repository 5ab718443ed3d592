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

_TURNS_TO_END = 4
"""Of the loop, at most: an aborted connection needs one; one that the server ended first, and on
which asyncio's abort does nothing any more, needs up to three."""


AT_CONNECTION: Final[ContextVar[Callable[[], Awaitable[object]] | None]] = ContextVar(
    "AT_CONNECTION", default=None
)
"""Awaited when a connection is there for the request of this context, before it is written."""


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
        connection = await super().connect(*args, **kwargs)
        protocol, transport = connection.protocol, connection.transport
        assert protocol is not None
        assert transport is not None
        if transport.get_extra_info("sslcontext") is not None:
            self._transports[protocol] = transport
        at_connection = AT_CONNECTION.get()
        if at_connection is not None:
            try:
                await at_connection()
            except BaseException:
                connection.release()  # it is as good as before
                raise
        return connection

    async def close(self, **options: Any) -> None:
        for transport in list(self._transports.values()):
            transport.abort()
        await super().close(**options)
        for _ in range(_TURNS_TO_END):
            await asyncio.sleep(0)
