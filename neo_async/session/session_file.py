"""The file that keeps a login for the processes of one machine, and for their restarts.

A TOTP code works once in 30 s, so processes that each log in would have to wait for one another.
With a file, one of them logs in and the others take its session up. The file holds the session's
secrets, so only its owner can read it; it is replaced whole or not at all. A session is taken up
only for the account, server and machine that it was made for (the broker accepts orders only from
the address that the login came from), and until midnight in India, when the broker ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import platform
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import msgspec

from neo_async.base import logs
from neo_async.base.india import day_number
from neo_async.base.text import shown
from neo_async.config import Credentials, Endpoints, cache_directory
from neo_async.errors import UsageError
from neo_async.model.session import Session
from neo_async.system import file_lock, files
from neo_async.wire.lenient import UNREADABLE

log = logging.getLogger(logs.SESSION)

LOCK_PATIENCE: Final = 75.0
"""Seconds for which a process waits for another one that logs in: two TOTP codes and the requests.
Longer than that it has hung."""
_BEGIN: Final = b'{"account":'
"""First bytes of every session file."""
_SHORT_WAIT: Final = 2.0
"""Seconds of waiting for another process that are not worth a line in the log."""
_LOCK_POLL: Final = 0.05
"""Seconds between two tries to take the lock."""


class StoredLogin(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    account: str
    """Digest of client code, consumer key and login URL."""
    server: str
    """Address that the login was sent to."""
    machine: str
    """Name of the machine that the login was made on."""
    session: Session | None
    """The session; None when the login failed, or was forgotten."""
    made_at: float
    """Unix seconds of the login, successful or not."""
    code_step: int = 0
    """Number of the 30 s whose TOTP code it used, since 1970."""
    refusal: str = ""
    """Why the broker refused the login; empty when it did not."""
    refusal_kind: str = ""
    """Name of the error; empty when the broker did not refuse it."""
    mpin_mark: str = ""
    """Mark of the MPIN that was sent, for which the consumer key is needed: see `mpin_mark`."""


class _OfOthers(UsageError):
    """The file is not of this account, server and machine."""


class SessionFile:
    """The stored login of one account at one server."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        credentials: Credentials,
        endpoints: Endpoints,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`clock` gives Unix seconds. Raises UsageError for a path that names no file."""
        self.path = Path(path).expanduser()
        if self.path.name in ("", "..") or "\0" in self.path.name:
            raise UsageError(f"{str(path)!r}: must be the path of a file")
        self._lock_path = self.path.with_name(f".{self.path.name}.lock")
        key = "\n".join((credentials.ucc, credentials.consumer_key, endpoints.login))
        self._account = hashlib.sha256(key.encode()).hexdigest()[:20]
        self._server = endpoints.login
        self.mpin_mark = mpin_mark(credentials)
        self._clock = clock

    # --- reading ------------------------------------------------------------------------------

    def load(self) -> StoredLogin | None:
        """Return the stored login of this account. None when there is none, or none that may be
        used, which is logged as a warning."""
        try:
            return self._read()
        except FileNotFoundError:
            return None
        except (OSError, UsageError) as error:
            log.warning("the login kept in %s is not used: %s", self.path, shown(_reason(error)))
            return None

    def session(self) -> Session:
        """Return the session. Raises UsageError that says why there is none to use."""
        try:
            stored = self._read()
        except (OSError, UsageError) as error:
            raise UsageError(f"{self.path}: {_reason(error)}") from None
        if stored.session is None:
            raise UsageError(f"{self.path}: holds no session: its login failed or was forgotten")
        if day_number(stored.made_at) != day_number(self._clock()):
            raise UsageError(f"{self.path}: is of an earlier day: the broker has ended it")
        return stored.session

    def _read(self) -> StoredLogin:
        """Raises UsageError for a file that is not of this account, server and machine."""
        content = files.read_if_private(self.path)
        try:
            stored = msgspec.json.decode(content, type=StoredLogin)
        except UNREADABLE:
            raise UsageError("it is not a session file, or damaged") from None
        if stored.account != self._account:
            raise _OfOthers("it is of another account, consumer key or server")
        if stored.machine != platform.node():
            raise _OfOthers(f"it was made on another machine, {stored.machine}")
        return stored

    # --- writing ------------------------------------------------------------------------------

    def save(
        self,
        session: Session | None,
        *,
        made_at: float | None = None,
        code_step: int = 0,
        refusal: str = "",
        refusal_kind: str = "",
    ) -> None:
        """Replace the file at once, or not at all. Raises OSError."""
        stored = StoredLogin(
            account=self._account,
            server=self._server,
            machine=platform.node(),
            session=session,
            made_at=self._clock() if made_at is None else made_at,
            code_step=code_step,
            refusal=refusal,
            refusal_kind=refusal_kind,
            mpin_mark=self.mpin_mark if refusal_kind else "",
        )
        self._set_foreign_file_aside()
        _write(self.path, stored)

    def forget(self) -> None:
        """Remove the session from the file, and keep which code it used. A damaged file is deleted;
        that of another account stays. Raises OSError."""
        try:
            stored = self._read()
        except (FileNotFoundError, _OfOthers):
            return
        except (files.NotPrivate, UsageError):
            self.path.unlink()
        else:
            _write(self.path, msgspec.structs.replace(stored, session=None))

    def _set_foreign_file_aside(self) -> None:
        """Rename a file that no client has written: it may be here by a mistake in the path."""
        try:
            with files.open_regular(self.path) as file:
                begin = file.read(len(_BEGIN))
        except OSError:
            return  # replaced, or not, by `replace`
        if begin and begin != _BEGIN:
            aside = self.path.with_name(f"{self.path.name}.unreadable")
            os.replace(self.path, aside)
            log.warning("%s was no session file: it is now %s", self.path, aside.name)

    # --- one process at a time ----------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep other processes from logging in within the block, after waiting for one that does.

        Where the lock cannot be had, because the directory cannot be written or its holder hangs,
        a warning is logged and the block runs without it.
        """
        lock = await self._take_lock()
        try:
            yield
        finally:
            if lock is not None:
                file_lock.release(lock)

    async def _take_lock(self) -> int | None:
        loop = asyncio.get_running_loop()
        began, is_told = loop.time(), False
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                return file_lock.hold(self._lock_path)
            except file_lock.Held as held:
                if loop.time() >= began + LOCK_PATIENCE:
                    log.warning(
                        "process %s has been logging in for %.0f s: not waiting for it any longer",
                        held,
                        LOCK_PATIENCE,
                    )
                    return None
                if not is_told and loop.time() >= began + _SHORT_WAIT:
                    log.warning("waiting for process %s, which is logging in", held)
                    is_told = True
            except OSError as error:
                log.warning(
                    "%s cannot be locked, other processes may log in at the same time: %s",
                    self._lock_path,
                    error.strerror,
                )
                return None
            await asyncio.sleep(_LOCK_POLL)


def default_path(credentials: Credentials, endpoints: Endpoints) -> Path:
    """Return the file that the commands keep the login of an account in: in
    `$XDG_CACHE_HOME/neo_async` or `~/.cache/neo_async`."""
    key = "\n".join((credentials.ucc, endpoints.login, platform.node()))
    return cache_directory() / f"login-{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"


def mpin_mark(credentials: Credentials) -> str:
    """Return a mark by which a wrong MPIN is known again. It is keyed with the consumer key and the
    TOTP secret, which no file here holds: six digits alone could be found by trying."""
    key = f"{credentials.consumer_key}\n{credentials.totp_secret}".encode()
    return hmac.new(key, credentials.mpin.encode(), "sha256").hexdigest()[:20]


def stored_logins() -> list[Path]:
    """Return the files in which the commands keep logins, of all accounts and servers."""
    return sorted(cache_directory().glob("login-*.json"))


def forget_login(path: Path, server: str, ucc: str = "") -> str:
    """Remove the session from a file, if it is of that server and, unless empty, client code.
    Return the client code of what was removed, or an empty text. Raises OSError."""
    try:
        stored = msgspec.json.decode(files.read_if_private(path), type=StoredLogin)
    except (FileNotFoundError, files.NotPrivate, *UNREADABLE):
        return ""
    session = stored.session
    if session is None or stored.server != server or (ucc and session.ucc != ucc):
        return ""
    _write(path, msgspec.structs.replace(stored, session=None))
    return session.ucc


def _write(path: Path, stored: StoredLogin) -> None:
    files.replace(path, [msgspec.json.encode(stored)])


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
