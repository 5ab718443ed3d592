"""Injection of the planned faults into connections and answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import web

from neo_async.exchange.faults.odd_values import with_odd_value
from neo_async.exchange.faults.plan import Decision, FaultPlan
from neo_async.exchange.faults.settings import Calls, ConnectionFault, ResponseFault
from neo_async.exchange.rest.replies import JSON, Reply
from neo_async.exchange.rest.services import ErrorResponses

_HTML: Final = "text/html; charset=utf-8"
_ERRORS: Final = (500, 502, 503, 504)
_OTHER_SHAPES: Final = (b"[]", b"null", b'"Ok"', b'{"result":[]}', b'{"data":null,"stat":null}')
_RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: closing sends a reset instead of an end of stream."""
_PIECES: Final = 1_000
"""Largest number of pieces in which a slow answer comes."""
_CROSSING_PATIENCE: Final = 60.0
"""Seconds after which a connection that was to cross its next request is closed without one."""


class _End(NamedTuple):
    """A connection that is going to be closed."""

    timer: asyncio.TimerHandle
    crossing: bool


class ResponseFaults:
    def __init__(self, plan: FaultPlan, respond: Callable[[Reply], web.Response]) -> None:
        self._plan = plan
        self._respond = respond
        self._ends: dict[asyncio.Transport, _End] = {}
        self._over = asyncio.Event()

    def close(self) -> None:
        """End all waits."""
        self._over.set()
        for end in self._ends.values():
            end.timer.cancel()

    async def serve(
        self,
        request: web.BaseRequest,
        calls: Calls,
        error_responses: ErrorResponses,
        answer: Callable[[], Awaitable[Reply]],
    ) -> web.StreamResponse:
        """Answer a request by `answer`, with the faults that the plan has for it."""
        transport = request.transport
        if transport is None or self._crosses(transport):
            return web.Response()  # the client is gone
        decision = self._plan.for_request(calls)
        await self._pause(decision.delay_before)
        if decision.fault is not None and decision.fault.before_accept:
            return await self._refuse(transport, decision, error_responses)
        reply = await answer()
        await self._pause(decision.delay_after)
        if decision.fault is not None:
            return await self._spoil(request, transport, decision, error_responses, reply)
        if decision.connection_fault is not None:
            self._end_later(transport, decision)
        return self._respond(reply)

    # --- faults ----------------------------------------------------------------------------------

    async def _refuse(
        self, transport: asyncio.Transport, decision: Decision, error_responses: ErrorResponses
    ) -> web.Response:
        if decision.fault is ResponseFault.THROTTLE:
            return self._respond(error_responses.throttled)
        if decision.fault is ResponseFault.ERROR_BEFORE:
            return self._respond(_error(decision.form, error_responses))
        return await self._abandon(transport, decision)

    async def _spoil(
        self,
        request: web.BaseRequest,
        transport: asyncio.Transport,
        decision: Decision,
        error_responses: ErrorResponses,
        reply: Reply,
    ) -> web.StreamResponse:
        if decision.fault is ResponseFault.ERROR_AFTER:
            return self._respond(_error(decision.form, error_responses))
        if decision.fault is ResponseFault.MALFORMED:
            return self._respond(_malformed(decision.form, reply))
        if decision.fault is ResponseFault.ODD_VALUE:
            return self._respond(reply._replace(body=with_odd_value(reply.body, decision.form)))
        if decision.fault is ResponseFault.TRUNCATED:
            return await self._truncate(request, reply, decision.form)
        if decision.fault is ResponseFault.DRIP:
            return await self._drip(request, reply, decision.seconds)
        return await self._abandon(transport, decision)

    async def _abandon(self, transport: asyncio.Transport, decision: Decision) -> web.Response:
        """Break the connection, at once or after hanging."""
        await self._pause(decision.seconds)
        _break(transport, decision.form)
        return web.Response()  # the client is gone

    async def _truncate(
        self, request: web.BaseRequest, reply: Reply, form: int
    ) -> web.StreamResponse:
        response = self._headers(reply)
        response.content_length = max(len(reply.body), 1)
        response.force_close()
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await response.write(reply.body[: form % max(len(reply.body), 1)])
        return response

    async def _drip(
        self, request: web.BaseRequest, reply: Reply, seconds: float
    ) -> web.StreamResponse:
        response = self._headers(reply)
        response.content_length = len(reply.body)
        size = max(1, -(-len(reply.body) // _PIECES))
        pause = seconds * size / max(len(reply.body), 1)
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            for start in range(0, len(reply.body), size):
                await self._pause(pause)
                await response.write(reply.body[start : start + size])
        return response

    def _headers(self, reply: Reply) -> web.StreamResponse:
        whole = self._respond(reply)
        return web.StreamResponse(status=whole.status, headers=whole.headers)

    async def _pause(self, seconds: float) -> None:
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._over.wait()

    # --- connections that end between requests --------------------------------------------------

    def _end_later(self, transport: asyncio.Transport, decision: Decision) -> None:
        crossing = decision.connection_fault is ConnectionFault.CROSSING
        seconds = _CROSSING_PATIENCE if crossing else decision.idle_seconds
        timer = asyncio.get_running_loop().call_later(seconds, self._end_idle, transport)
        self._ends[transport] = _End(timer, crossing)

    def _end_idle(self, transport: asyncio.Transport) -> None:
        end = self._ends.pop(transport)
        # Once all is well again, a request may be under way that was not seen here.
        if self._plan.hits_requests and not transport.is_closing():
            self._plan.count(ConnectionFault.CROSSING if end.crossing else ConnectionFault.IDLE)
            transport.close()

    def _crosses(self, transport: asyncio.Transport) -> bool:
        """Return whether the connection is to be closed as this request comes in."""
        end = self._ends.pop(transport, None)
        if end is None:
            return False
        end.timer.cancel()
        if end.crossing:
            self._plan.count(ConnectionFault.CROSSING)
            transport.abort()
        return end.crossing


def _break(transport: asyncio.Transport, form: int) -> None:
    if transport.is_closing():
        return  # the client has left first
    if form % 2:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _error(form: int, error_responses: ErrorResponses) -> Reply:
    status = HTTPStatus(_ERRORS[form % len(_ERRORS)])
    if form % 3 == 0:
        return error_responses.failed(status)
    if form % 3 == 1:
        title = f"{status} {status.phrase}"
        page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
        return Reply(page.encode(), status, _HTML)
    return Reply(b"", status, _HTML)


def _malformed(form: int, reply: Reply) -> Reply:
    bodies = (
        b"<html><body>the service is being restarted</body></html>",
        reply.body[: len(reply.body) // 2],
        _OTHER_SHAPES[form // 4 % len(_OTHER_SHAPES)],
    )
    if form % 4 == 3:
        return Reply(bodies[0], content_type=_HTML)
    return Reply(bodies[form % 4], content_type=JSON)
