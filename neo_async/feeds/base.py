"""The part that all feeds share: state, reconnects, renewal of the login."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    Callable,
)
from types import TracebackType
from typing import Self

from neo_async import logs
from neo_async.config import FeedTimings
from neo_async.errors import (
    LoginFailed,
    NotLoggedIn,
    SessionEnded,
)
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.session import Session
from neo_async.session.manager import SessionManager
from neo_async.transport.websocket import ReconnectingSocket

log = logging.getLogger(logs.FEEDS)


LOGIN_LOOK_EVERY = 1.0
"""Seconds between two looks whether the program has logged in again, where the broker refuses the
login that a feed would need."""


class Feed:
    """What both streams have in common."""

    _connection: ReconnectingSocket
    _manager: SessionManager
    _timings: FeedTimings
    _session: Session | None = None
    """The login that the present connection was opened with."""
    _renewed_at: float | None = None
    """Time of the loop at which a login was made for this stream; None once one was accepted."""

    @property
    def name(self) -> str:
        return self._connection.name

    @property
    def state(self) -> FeedState:
        return self._connection.state

    @property
    def reason(self) -> str:
        """Why the connection was lost last, or why the login was refused; empty before that."""
        return self._connection.reason

    @property
    def refusal(self) -> str:
        """Why the feed makes no other try before the program has logged in again: the broker
        refuses the login. Empty while it does not."""
        return self._connection.refusal

    @property
    def is_live(self) -> bool:
        return self._connection.is_live

    @property
    def reconnects(self) -> int:
        """Times it was live again after a loss."""
        return self._connection.reconnects

    @property
    def stalls(self) -> int:
        """Times that silence in an open market was taken for a loss."""
        return self._connection.stalls

    @property
    def last_gap(self) -> float | None:
        """Seconds from the last loss until it was live again; None before the first."""
        return self._connection.last_gap

    @property
    def last_message_at(self) -> float:
        """Time of the loop at the last message; 0 before the first."""
        return self._connection.last_message_at

    def on_event(self, listener: Callable[[FeedEvent], None]) -> None:
        """Call `listener` at every change of state."""
        self._connection.on_event(listener)

    def on_live(self, listener: Callable[[], None]) -> None:
        """Call `listener` each time the feed is live, the first time too."""

        def at_event(event: FeedEvent) -> None:
            if event.state is FeedState.LIVE:
                listener()

        self._connection.on_event(at_event)

    async def until_live(self) -> None:
        """Wait until the server has accepted us.

        Raises TransportError when the feed is closed meanwhile, or the broker refuses the login.
        """
        await self._connection.until_live()

    async def close(self) -> None:
        await self._connection.close()

    async def _renew(self) -> None:
        """Renew the login that the server refused, unless somebody has done so meanwhile.

        A server that refuses new logins, too, is not for want of another one. When the broker
        refuses the login itself, this waits for the program to log in again: MPIN and codes are not
        tried over and over, for that locks an account.
        """
        if self._session is None:
            return
        now = asyncio.get_running_loop().time()
        wait = self._timings.between_logins
        if self._renewed_at is not None and now < self._renewed_at + wait:
            log.warning("a new login was refused as well: no other one within %.0f s", wait)
            return
        self._renewed_at = now
        try:
            await self._manager.renew(self._session)
        except SessionEnded:
            self._renewed_at = None  # it was not made: the broker could not be reached
            raise
        except LoginFailed as error:
            self._renewed_at = None
            log.error(
                "the %s waits for a new login, for the broker refuses it: %s", self.name, error
            )
            self._connection.refuse(f"the broker refuses the login ({error}): log in again")
            await self._until_next_login(self._session)

    async def _until_next_login(self, ended: Session) -> None:
        while self._is_current(ended):  # noqa: ASYNC110 - a login has no event
            await asyncio.sleep(LOGIN_LOOK_EVERY)

    def _is_current(self, session: Session) -> bool:
        try:
            return self._manager.current is session
        except NotLoggedIn:
            return True

    async def __aenter__(self) -> Self:
        self._connection.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state}, {self.reconnects} reconnects>"
