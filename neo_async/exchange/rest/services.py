"""What every service of the exchange is from outside: calls in, replies out.

The broker's is the door for whatever no other one takes; others have a path of their own.
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
    """Looked up without regard to case."""
    body: bytes
    client_ip: str
    time: float
    """Unix seconds by the exchange's clock."""
    wall_time: float
    """By the clock that callers have, too: the exchange's may have been moved on."""
    query: Mapping[str, str] = {}
    ucc: str = ""
    """Whose call it is; filled in by the guard at the door."""


Answer = Callable[[Call], Reply]
LongAnswer = Callable[[Call], Reply | Awaitable[Reply]]
"""May take several turns of the loop."""
AdminRoutes = Mapping[str, Mapping[str, Answer]]
"""Path below the exchange's control surface to method to answer."""


class ErrorResponses(NamedTuple):
    """How a service says what every service has to say at times."""

    throttled: Reply
    failed: Callable[[int], Reply]
    """By status: a fault of its own."""


class Service(Protocol):
    """One service, mounted by `Exchange` beside the broker's."""

    @property
    def error_responses(self) -> ErrorResponses: ...

    @property
    def admin_routes(self) -> AdminRoutes: ...

    def takes(self, path: str) -> bool: ...

    def kind(self, method: str, path: str) -> Calls:
        """What faults take such a call for."""

    def answer(self, call: Call) -> Reply: ...

    def reset(self) -> None:
        """Start over, as the market does."""
