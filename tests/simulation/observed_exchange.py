"""An exchange that records when cancels arrive, and reports every request with its faults."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from neo_async.exchange import Exchange

_request: ContextVar[int] = ContextVar("request")


class ObservedExchange(Exchange):
    """An exchange that passes each request, its faults and its answer to `story` as text."""

    def __init__(self, story: Callable[[str], None] | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._story = story
        self.cancels: list[tuple[float, str]] = []
        """Loop time and order number of every cancel that arrived."""
        self._count = itertools.count(1)
        if story is not None:
            draw = self.faults.for_request

            def drawing(calls: Any) -> Any:
                decision = draw(calls)
                story(f"  #{_request.get()} meets {_fault_names(decision)}")
                return decision

            self.faults.for_request = drawing  # type: ignore[method-assign]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/cancel"):
            arrived = asyncio.get_running_loop().time()
            self.cancels.append((arrived, _order_fields(await request.read()).get("on", "")))
        if self._story is None:
            return await super()._handle(request)
        number = next(self._count)
        _request.set(number)
        path = request.path.removeprefix("/neo")
        self._story(f"  #{number} {path}")
        ending = "nothing"
        try:
            answer = await super()._handle(request)
            # Even made-up tokens are never printed.
            body = b"" if path.startswith("/login") else getattr(answer, "body", None) or b""
            ending = f"{answer.status} {bytes(body[:90])!r}"
        finally:
            fields = _order_fields(await request.read())
            self._story(f"  #{number} {path} {fields} is answered {ending}")
        return answer


def _order_fields(body: bytes) -> dict[str, str]:
    """Return the fields of a form that identify the order and the change."""
    content = parse_qs(body.decode()).get("jData", ["{}"])[0]
    form = json.loads(content)
    return {name: form[name] for name in ("ig", "no", "on", "nOrdNo", "qt", "pr") if name in form}


def _fault_names(decision: Any) -> str:
    """Return the faults that were drawn for one request, as text."""
    parts = [
        f"{name}={value:.2f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in decision._asdict().items()
        if value and name != "form"
    ]
    return ", ".join(parts) or "nothing"
