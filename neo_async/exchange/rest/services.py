"""The interface of every service of the exchange: calls in, replies out.

The broker's takes every call that no other one takes; others have a path of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from neo_async.exchange.faults.settings import Calls
from neo_async.exchange.rest.replies import Reply


class Call(msgspec.Struct):
    """A request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Request headers; names are looked up without regard to case."""
    body: bytes
    client_ip: str
    time: float
    """Unix seconds by the exchange's clock."""
    wall_time: float
    """Unix seconds by the callers' clock; the exchange's may have been moved forward."""
    query: Mapping[str, str] = {}
    ucc: str = ""
    """Client code of the account that called; set once the call is authorised."""


Answer = Callable[[Call], Reply]
LongAnswer = Callable[[Call], Reply | Awaitable[Reply]]
"""An answer that may take several turns of the event loop."""
AdminRoutes = Mapping[str, Mapping[str, Answer]]
"""Answers by path below the control surface, and by method."""


class ErrorResponses(NamedTuple):
    """Wording, by one service, of the errors that every service has."""

    throttled: Reply
    failed: Callable[[int], Reply]
    """Function that returns the answer to an internal error, by HTTP status."""


class Service(Protocol):
    """A service that is mounted beside the broker's."""

    @property
    def error_responses(self) -> ErrorResponses: ...

    @property
    def admin_routes(self) -> AdminRoutes: ...

    def takes(self, path: str) -> bool: ...

    def kind(self, method: str, path: str) -> Calls:
        """Return the kind of call, which decides the faults it meets."""

    def answer(self, call: Call) -> Reply: ...

    def reset(self) -> None:
        """Start over, together with the market."""
