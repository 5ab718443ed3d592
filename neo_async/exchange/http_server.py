"""The HTTP side of an open exchange: every request goes to the feeds, the control surface or a
service, and its answer leaves once nothing that it reports can be lost."""

from __future__ import annotations

import secrets
from email.utils import formatdate

from aiohttp import web

from neo_async.exchange.addresses import ADMIN_PATH
from neo_async.exchange.build import Parts
from neo_async.exchange.clock import MovedClock
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.faults.response_faults import ResponseFaults
from neo_async.exchange.rest.admin import Request
from neo_async.exchange.rest.replies import Reply, json
from neo_async.exchange.rest.services import Call, LongAnswer
from neo_async.exchange.rest.web_origin import foreign_host, foreign_page


class HttpServer:
    def __init__(
        self, parts: Parts, clock: MovedClock, faults: FaultPlan, *, on_loopback: bool
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._faults = faults
        self._on_loopback = on_loopback
        self._date = (0, "")
        self.response_faults = ResponseFaults(faults, self._response)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        parts = self._parts
        if (why := self._refusal(request)) is not None:
            return self._response(json({"error": why}, status=403))
        if parts.feeds.takes(request.path):
            parts.admin.requests.append(Request(self._clock(), request.method, request.path))
            return await parts.feeds.serve(request)
        body = await request.read()
        if parts.admin.takes(request.path):
            return self._response(await self._answer(parts.admin.answer, request, body))
        parts.admin.requests.append(Request(self._clock(), request.method, request.path))
        service = next((each for each in parts.services if each.takes(request.path)), parts.broker)
        if not self._faults.hits_requests:
            return self._response(await self._answer(service.answer, request, body))
        return await self.response_faults.serve(
            request,
            service.kind(request.method, request.path),
            service.error_responses,
            lambda: self._answer(service.answer, request, body),
        )

    def _refusal(self, request: web.BaseRequest) -> str | None:
        """Return why a request is refused whatever its path; None if it is not."""
        headers = request.headers
        if why := foreign_page(headers, request.method, on_loopback=self._on_loopback):
            return f"{why}: the exchange takes no requests from web pages of others"
        # A GET of a page whose own name was rebound to this machine shows it in nothing else.
        if self._on_loopback and (why := foreign_host(headers)):
            return f"{why}: use one of those, such as 127.0.0.1"
        if not request.path.startswith(f"{ADMIN_PATH}/"):
            return None
        within = f"{self._parts.addresses.admin_path}/".encode()
        if not secrets.compare_digest(request.path.encode()[: len(within)], within):
            return (
                "the control surface wants the key of `admin_url` in the path: see the ready line"
            )
        return None

    async def _answer(self, answer: LongAnswer, request: web.BaseRequest, body: bytes) -> Reply:
        """Return the answer as soon as nothing can be lost of what the request has led to."""
        call = Call(
            method=request.method,
            path=request.path,
            headers=request.headers,
            body=body,
            client_ip=request.remote or "",
            time=self._clock(),
            wall_time=self._clock.unmoved(),
            query=request.query,
        )
        reply = answer(call)
        if not isinstance(reply, Reply):
            reply = await reply
        await self._parts.venue.durable()
        self._parts.feeds.notice_soon()
        return reply

    def _response(self, reply: Reply) -> web.Response:
        headers = {
            "Content-Type": reply.content_type,
            "Date": self._http_date(self._clock.unmoved()),
        }
        headers.update(reply.headers)
        return web.Response(body=reply.body, status=reply.status, headers=headers)

    def _http_date(self, now: float) -> str:
        """Return the `Date` of an answer, by which callers see how far their clock is off."""
        second = int(now)
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]
