"""A broker of a few lines that takes orders, and whose every part a test can replace.

It says what a test wants of an order, and not what is true: cancels may be refused, books may lack
orders or show them in any state, and any call may hang.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from aiohttp import web

from neo_async import NeoClient
from neo_async.wire.forms import FORM_CONTENT_TYPE
from tests.clients import WIDE, grouped
from tests.fake_servers import (
    BASE,
    CREDENTIALS,
    SID,
    TOKEN,
    VALIDATE,
    Reply,
    Scripted,
    respond,
    serving,
)
from tests.simulation.virtual_time import now

PLACE = "/quick/order/rule/ms/place"
MODIFY = "/quick/order/vr/modify"
CANCEL = "/quick/order/cancel"
HISTORY = "/quick/order/history"
BOOK = "/quick/user/orders"

NO_DATA = Reply({"stCode": 5203, "errMsg": "No Data", "desc": "data not found", "stat": "Not_Ok"})
NOT_FOUND = Reply(
    {"stat": "Not_Ok", "emsg": "Order already cancelled or not found.", "stCode": 1006}
)

Row = dict[str, Any]


class OrderBroker(Scripted):
    """Orders are open from their acceptance on, and cancelled by an accepted cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Row] = {}
        """What is true, by order number."""
        self.shown: Callable[[Row], Row | None] = lambda row: row
        """A row of the book; None leaves it out."""
        self.refusal: Callable[[str], Reply | None] = lambda number: None
        """What a cancel of a number is answered with, without any effect; None takes it."""
        self.instead: dict[str, Reply] = {}
        """By path."""
        self.seconds: dict[str, float] = {}
        """By path, the seconds that an answer takes; 0.05 for others."""
        self.closing = asyncio.Event()
        """Set when no answer is waited for any more."""
        self.arrivals: list[tuple[float, str]] = []
        """Time of the loop and path of every request."""
        self.ports: list[int] = []
        """Of the client's end of the connection of each."""
        self.takes_placements_in_spite = False
        """Whether a placement takes effect although it is answered with what `instead` holds."""

    def open_numbers(self) -> list[str]:
        return [number for number, row in self.rows.items() if row["ordSt"] == "open"]

    def count(self, path: str) -> int:
        return sum(seen == path for _, seen in self.arrivals)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix(BASE)
        if path not in (PLACE, CANCEL, BOOK):
            return await super().handle(request)
        self.arrivals.append((asyncio.get_running_loop().time(), path))
        assert request.transport is not None
        self.ports.append(request.transport.get_extra_info("peername")[1])
        form = await _form(request) if path != BOOK else {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds.get(path, 0.05)):
                await self.closing.wait()
        if path in self.instead:
            if path == PLACE and self.takes_placements_in_spite:
                self.add(form)
            return await respond(request, self.instead[path])
        if path == PLACE:
            return await respond(request, accepted(self.add(form)))
        if path == CANCEL:
            refused = self.refusal(form["on"])
            if refused is None:
                self.rows[form["on"]]["ordSt"] = "cancelled"
            return await respond(request, refused or accepted(form["on"]))
        rows = [row for row in map(self.shown, self.rows.values()) if row is not None]
        content = {"stat": "Ok", "stCode": 200, "data": rows}
        return await respond(request, Reply(content) if rows else NO_DATA)

    def add(self, form: dict[str, str] | None = None) -> str:
        """A new open order; without a form as if another application had placed it."""
        form = form or {}
        number = f"261123{len(self.rows) + 1:09}"
        self.rows[number] = {
            "nOrdNo": number,
            "ordSt": "open",
            "exSeg": "nse_cm",
            "trdSym": "ITBEES-EQ",
            "trnsTp": "B",
            "prcTp": "L",
            "prod": "MIS",
            "vldt": "DAY",
            "qty": 10,
            "prc": "39.00",
            "GuiOrdId": form.get("ig", ""),
        }
        return number


@contextlib.asynccontextmanager
async def order_broker(**options: Any) -> AsyncIterator[tuple[OrderBroker, NeoClient]]:
    """A broker, and a client that is logged in to it and has no order feed."""
    async with serving_orders() as broker:
        defaults: dict[str, Any] = {"live_updates": False, "limits": WIDE, "clock": now}
        settings = grouped({**defaults, **options})
        neo = NeoClient(CREDENTIALS, endpoints=broker.endpoints, **settings)
        neo.limiter._clock = asyncio.get_running_loop().time
        async with neo:
            yield broker, neo


@contextlib.asynccontextmanager
async def serving_orders() -> AsyncIterator[OrderBroker]:
    broker = OrderBroker()
    async with serving(broker.handle) as url:
        broker.url = url
        session = {"token": TOKEN, "sid": SID, "status": "success", "baseUrl": url + BASE}
        broker.script(VALIDATE, Reply({"data": session}))
        try:
            yield broker
        finally:
            broker.closing.set()
            await asyncio.sleep(0)


async def _form(request: web.BaseRequest) -> dict[str, str]:
    assert request.headers["Content-Type"] == FORM_CONTENT_TYPE
    fields = await request.post()
    form = msgspec.json.decode(str(fields["jData"]))
    assert isinstance(form, dict)
    return form


def accepted(number: str) -> Reply:
    return Reply({"nOrdNo": number, "stat": "Ok", "stCode": 200})
