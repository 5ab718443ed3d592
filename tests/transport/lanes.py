"""Warm lanes for tests, each with a server of its own at the far end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from neo_async.config import PoolLimits, RateLimits
from neo_async.model.answer import Answer
from neo_async.transport.hidden import Hidden
from neo_async.transport.kinds import Kind
from neo_async.transport.lane import Lane
from neo_async.transport.limiter import Limiter
from neo_async.transport.pool import HandOver
from tests.transport.servers import AUTHORITY, Script, Server, request, serving, trust

UNLIMITED = RateLimits(orders=10_000, total=10_000)


@asynccontextmanager
async def lane_to(
    script: Script,
    *,
    tls: bool = False,
    warm: int = 1,
    maximum: int = 4,
    reserved: int = 0,
    for_cancels: int = 0,
    limiter: Limiter | None = None,
) -> AsyncIterator[tuple[Lane, Server]]:
    """A warm lane to a server with this script, and the server; unless told otherwise, without
    connections that are reserved for cancels, or opened for them beyond the limit."""
    authority = AUTHORITY if tls else None
    async with serving(script, tls=authority) as server:
        lane = Lane(
            server.url,
            limiter or Limiter(UNLIMITED),
            PoolLimits(warm=warm, maximum=maximum, reserved=reserved, for_cancels=for_cancels),
            connect_timeout=2.0,
            tls=trust(AUTHORITY) if tls else None,
        )
        await lane.open()
        try:
            yield lane, server
        finally:
            async with asyncio.timeout(5):
                await lane.close()


async def send(
    lane: Lane,
    body: bytes = b"x",
    *,
    within: float = 5.0,
    kind: Kind = Kind.PLACE,
    record: HandOver | None = None,
) -> Answer:
    return await lane.request(kind, Hidden(request(body)), within, record)


async def assert_usable(lane: Lane) -> None:
    answer = await send(lane, b"still alive")
    assert (answer.status, answer.body) == (200, b"still alive")


def starts_of(*, cancel: int = 0, modify: int = 0, place: int = 0, read: int = 0) -> list[int]:
    """Return the starts of a limiter by kind, none of them those of exit plans."""
    starts = {Kind.CANCEL: cancel, Kind.MODIFY: modify, Kind.PLACE: place, Kind.READ: read}
    return [starts.get(kind, 0) for kind in Kind]
