"""The part that all feeds share: state, reconnects, renewal of the login."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from neo_async.base.logs import Log
from neo_async.config import FeedTimings
from neo_async.errors import LoginFailed, NotLoggedIn, SessionEnded
from neo_async.model.feed_state import FeedEvent, FeedState
from neo_async.model.session import Session
from neo_async.session.manager import SessionManager
from neo_async.transport.websocket import ReconnectingSocket

LOGIN_CHECK_SECONDS = 1.0
"""Seconds between two checks whether the program has logged in again, while the broker refuses the
login that a feed needs."""


class Feed:
    """A stream that stays connected by itself.

    It reconnects and renews the login as often as that is needed; consumers go on as if nothing
    had happened. `state`, `reconnects`, `last_gap` and the events show what did.
    """

    _connection: ReconnectingSocket
    _log: Log
    _manager: SessionManager
    _timings: FeedTimings
    _session: Session | None = None
    """The login with which the present connection was opened."""
    _renewed_at: float | None = None
    """Time of the loop at which a login was made for this feed; None once one was accepted."""

    @property
    def name(self) -> str:
        """`market feed` or `order feed`."""
        return self._connection.name

    @property
    def state(self) -> FeedState:
        """The state of the connection."""
        return self._connection.state

    @property
    def reason(self) -> str:
        """Why the connection was lost last, or why the login was refused; empty before that."""
        return self._connection.reason

    @property
    def refusal(self) -> str:
        """Why the feed does not connect again before the program has logged in again: the broker
        refuses the login. Empty while it does not."""
        return self._connection.refusal

    @property
    def is_live(self) -> bool:
        """Whether the feed is connected and logged in."""
        return self._connection.is_live

    @property
    def reconnects(self) -> int:
        """Number of times the feed was live again after a loss."""
        return self._connection.reconnects

    @property
    def stalls(self) -> int:
        """Number of times that silence in an open market was taken for a loss."""
        return self._connection.stalls

    @property
    def last_gap(self) -> float | None:
        """Seconds from the last loss until the feed was live again; None before the first."""
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
        """Wait until the server has accepted the login.

        Raises TransportError when the feed is closed meanwhile, or the broker refuses the login.
        """
        await self._connection.until_live()

    async def close(self) -> None:
        """Disconnect, and stay disconnected."""
        await self._connection.close()

    async def _renew(self) -> None:
        """Renew the login that the server refused, unless another caller has done so meanwhile.

        A new login that the server refuses as well is not followed by one more before
        `between_logins` seconds are over: another login would not help. When the broker refuses the
        login itself, this waits for the program to log in again: repeating MPIN and codes would
        lock the account.
        """
        if self._session is None:
            return
        now = asyncio.get_running_loop().time()
        wait = self._timings.between_logins
        if self._renewed_at is not None and now < self._renewed_at + wait:
            self._log.warning("a new login was refused as well: no other one within %.0f s", wait)
            return
        self._renewed_at = now
        try:
            await self._manager.renew(self._session)
        except SessionEnded:
            self._renewed_at = None  # it was not made: the broker could not be reached
            raise
        except LoginFailed as error:
            self._renewed_at = None
            self._log.error(
                "the %s waits for a new login, for the broker refuses it: %s", self.name, error
            )
            self._connection.refuse(f"the broker refuses the login ({error}): log in again")
            await self._until_next_login(self._session)

    async def _until_next_login(self, ended: Session) -> None:
        while self._is_current(ended):  # noqa: ASYNC110 - a login has no event
            await asyncio.sleep(LOGIN_CHECK_SECONDS)

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
