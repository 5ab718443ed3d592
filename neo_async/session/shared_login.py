"""A login that processes share by a file: one logs in, the others take its session up."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from neo_async.base import logs
from neo_async.base.india import day_number, in_india
from neo_async.errors import LoginFailed, SessionEnded, WrongMpin, WrongTotp
from neo_async.model.session import Session
from neo_async.session.login import Authenticator
from neo_async.session.session_file import SessionFile, StoredLogin
from neo_async.transport.hidden import Hidden

log = logging.getLogger(logs.SESSION)

_KINDS: Final = {kind.__name__: kind for kind in (LoginFailed, WrongMpin, WrongTotp)}
"""The refusals that are passed on to the processes that waited for the login."""


class Login(NamedTuple):
    """A session, and how it was come by."""

    session: Session
    made_at: float
    """Unix seconds of the login."""
    is_new: bool
    """Whether the login was made here, and not taken up from the file."""


class SharedLogin:
    """Takes a session up from the file, or logs in and stores it."""

    def __init__(
        self,
        file: SessionFile,
        authenticator: Authenticator,
        is_alive: Callable[[Session], Awaitable[bool]],
        clock: Callable[[], float],
    ) -> None:
        """`is_alive` asks the broker whether a session has not ended; `clock` gives Unix
        seconds."""
        self.file = file
        self._authenticator = authenticator
        self._is_alive = is_alive
        self._clock = clock

    async def login(
        self, totp: Hidden[str] | None = None, *, ended: Session | None = None, fresh: bool = False
    ) -> Login:
        """Return the session of the file, where there is one that is not `ended`; else, and in any
        case with `fresh`, log in as Authenticator does, by the code `totp` or by one made from the
        secret.

        Raises what Authenticator.login raises, and SessionEnded when `ended` cannot be renewed for
        want of a TOTP secret. Of the processes that wait for a login that is refused, one sends the
        credentials, and the others raise its error. An MPIN that was refused is not sent again that
        day unless `fresh`: repeating it would lock the account.
        """
        began = self._clock()
        async with self.file.locked():
            stored = self.file.load()
            if stored is not None:
                if not fresh:
                    if (kept := await self._kept(stored, ended)) is not None:
                        return kept
                    self._raise_refusal(stored, began)
                self._authenticator.step_used_elsewhere = stored.code_step
            if ended is not None and not self._authenticator.has_totp_secret:
                raise SessionEnded(
                    "the broker has ended the session, and without a TOTP secret it cannot be "
                    "renewed"
                )
            return await self._log_in(totp)

    async def _kept(self, stored: StoredLogin, ended: Session | None) -> Login | None:
        session = stored.session
        if session is None or (ended is not None and session.token == ended.token):
            return None
        if day_number(stored.made_at) != day_number(self._clock()):
            log.warning("the login kept in %s is of an earlier day: not used", self.file.path)
            return None
        if not await self._is_alive(session):
            log.info("the broker has ended the login kept in %s", self.file.path)
            return None
        return Login(session, stored.made_at, is_new=False)

    async def _log_in(self, totp: Hidden[str] | None) -> Login:
        try:
            session = await self._authenticator.login(totp)
        except LoginFailed as error:
            kind = type(error).__name__
            self._save(
                None,
                self._clock(),
                refusal=error.text,
                refusal_kind=kind if kind in _KINDS else LoginFailed.__name__,
            )
            raise
        made_at = self._clock()
        self._save(session, made_at)
        return Login(session, made_at, is_new=True)

    def _save(
        self, session: Session | None, made_at: float, *, refusal: str = "", refusal_kind: str = ""
    ) -> None:
        try:
            self.file.save(
                session,
                made_at=made_at,
                code_step=self._authenticator.used_step,
                refusal=refusal,
                refusal_kind=refusal_kind,
            )
        except OSError as error:
            # This client does not need it; the next one has to log in.
            log.warning("the login could not be stored in %s: %s", self.file.path, error)

    def _raise_refusal(self, stored: StoredLogin, began: float) -> None:
        """Raise the refusal of an earlier login, if it is of these credentials and still counts."""
        if not stored.refusal_kind or stored.mpin_mark != self.file.mpin_mark:
            return
        at = f"{in_india(stored.made_at):%H:%M:%S}"
        if stored.refusal_kind == WrongMpin.__name__:
            if day_number(stored.made_at) == day_number(self._clock()):
                raise WrongMpin(
                    f"{stored.refusal.rstrip('.')} (at {at} IST; it is not sent again today: "
                    "correct it, or log in with fresh=True, --fresh in the shell)"
                )
        elif stored.made_at >= began:
            kind = _KINDS.get(stored.refusal_kind, LoginFailed)
            raise kind(f"{stored.refusal} (the login of another process, at {at} IST)")
