"""The login that is stored between two commands.

A TOTP code works once in 30 s, so a shell that logged in for every command could run two of them a
minute. The file holds the session's secrets: only its owner can read it, and it is valid until
midnight in India, as the session is. Logging out leaves only the time of the login in it, by which
it is known when the next code may be used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from neo_async import files
from neo_async.base.india import day_number
from neo_async.config import Credentials, Endpoints
from neo_async.model.session import Session
from neo_async.wire.lenient import UNREADABLE

_TOTP_STEP = 30


class StoredLogin(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    session: Session | None
    """The session; None after a logout, or when the MPIN was wrong."""
    made_at: float
    """Unix seconds of the login. The TOTP code of that time has been used."""

    def is_good(self, now: float) -> bool:
        return self.session is not None and day_number(self.made_at) == day_number(now)

    def seconds_to_next_code(self, now: float) -> float:
        """Return the seconds until an unused TOTP code; 0 when the present one is unused."""
        step = int(self.made_at // _TOTP_STEP)
        return 0.0 if step != int(now // _TOTP_STEP) else (step + 1) * _TOTP_STEP - now


class LoginFile:
    """The stored login of one account at one server."""

    def __init__(self, directory: Path, credentials: Credentials, endpoints: Endpoints) -> None:
        key = "\n".join((credentials.ucc, credentials.consumer_key, endpoints.login))
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        self.path = directory / f"login-{name}.json"

    def load(self) -> StoredLogin | None:
        """Return the stored login; None when there is none, or the file is unreadable or not
        private."""
        try:
            content = files.read_private(self.path)
            return None if content is None else msgspec.json.decode(content, type=StoredLogin)
        except (OSError, *UNREADABLE):
            return None

    def save(self, login: StoredLogin) -> None:
        """Replace the file at once, or not at all. Raises OSError."""
        files.replace(self.path, [msgspec.json.encode(login)])

    def forget(self) -> None:
        """Remove the session from the file."""
        login = self.load()
        if login is not None:
            self.save(StoredLogin(session=None, made_at=login.made_at))
        else:
            self.path.unlink(missing_ok=True)
