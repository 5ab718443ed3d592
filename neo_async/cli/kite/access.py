"""Access to Kite: the access token of the environment, or of the last login, which is stored.

The file holds a secret: only its owner can read it, and it is valid until six in the morning in
India, as the token is.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
import typer

import neo_async
from neo_async.base.india import day_number
from neo_async.cli import output, prompts
from neo_async.cli.connection import mode_of
from neo_async.cli.output import AsJson
from neo_async.config import KiteEndpoints, cache_directory
from neo_async.errors import UsageError
from neo_async.kite import KiteLogin, KiteMutualFunds, KiteSession
from neo_async.system import files
from neo_async.transport.hidden import Hidden
from neo_async.wire.lenient import UNREADABLE

T = TypeVar("T")

_ENDS_AT = 6 * 3600


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    access_token: str
    user_id: str
    made_at: float
    """Unix seconds of the login."""

    def __repr__(self) -> str:
        return f"_Stored(user_id={self.user_id!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("user_id", self.user_id)]

    def is_good(self, now: float) -> bool:
        return _token_day(self.made_at) == _token_day(now)


class Access:
    """The application given by the environment, and its stored login."""

    def __init__(self) -> None:
        self.api_key = _needed("KITE_API_KEY")
        self.endpoints = KiteEndpoints.from_env()
        key = "\n".join((self.api_key, self.endpoints.api))
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        self._path = cache_directory() / f"kite-login-{name}.json"

    def __str__(self) -> str:
        stored = self._stored()
        is_of_file = stored is not None and not os.environ.get("KITE_ACCESS_TOKEN")
        user = stored.user_id if stored is not None and is_of_file else "the access token's owner"
        return f"{user} at {self.endpoints.api}: {mode_of(is_paper=self.endpoints.is_paper)}"

    def client(self) -> KiteMutualFunds:
        """Return a client. Raises UsageError when there is no access token."""
        token = Hidden(os.environ.get("KITE_ACCESS_TOKEN", ""))
        stored = self._stored()
        if not token.value and stored is not None:
            token = Hidden(stored.access_token)
        if not token.value:
            raise UsageError(
                "KITE_ACCESS_TOKEN is not set, and no login of today is stored: "
                "neo-async kite login"
            )
        return KiteMutualFunds(self.api_key, token.value, endpoints=self.endpoints)

    def session(self) -> KiteSession:
        """Return a session for login and logout. Raises UsageError when the API secret is
        missing."""
        return KiteSession(self.api_key, _needed("KITE_API_SECRET"), endpoints=self.endpoints)

    def keep(self, login: KiteLogin) -> None:
        """Store a login. Raises OSError."""
        stored = _Stored(
            access_token=login.access_token, user_id=login.user_id, made_at=time.time()
        )
        files.replace(self._path, [msgspec.json.encode(stored)])

    def forget(self) -> Hidden[str]:
        """Delete the stored login, and return its token or an empty one. Raises OSError."""
        stored = self._stored()
        self._path.unlink(missing_ok=True)
        return Hidden(stored.access_token if stored is not None else "")

    def _stored(self) -> _Stored | None:
        try:
            content = files.read_private(self._path)
            stored = None if content is None else msgspec.json.decode(content, type=_Stored)
        except (OSError, *UNREADABLE):
            return None
        return stored if stored is not None and stored.is_good(time.time()) else None


def read(call: Callable[[KiteMutualFunds], Awaitable[T]]) -> T:
    """Make calls on an event loop of their own."""

    async def run() -> T:
        async with Access().client() as kite:
            return await call(kite)

    return neo_async.run(run())


def login(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="Address to which the login redirected the browser, or the request token in it; "
            "prompted for if not given.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Log in: open the page that is shown, and enter the address to which it redirects.

    The access token is stored for later commands, until six in the morning.
    """
    access = Access()
    session = access.session()
    if not address:
        output.echo(f"log in at {session.login_url}", err=True)
        if not prompts.can_prompt():
            raise UsageError("then: neo-async kite login ADDRESS, with the address of the redirect")
        address = typer.prompt("address of the redirect", err=True)
    made = neo_async.run(session.open(address))
    access.keep(made)
    if as_json:
        output.print_json({"user_id": made.user_id})
    else:
        output.echo(f"logged in as {made.user_id} until six in the morning")


def logout(as_json: AsJson = False) -> None:
    """End the stored login, at Kite as well."""
    access = Access()
    token = access.forget()
    if token.value:
        neo_async.run(access.session().end(token.value))
    if as_json:
        output.print_json({"logged_out": bool(token.value)})
    else:
        output.echo("logged out" if token.value else "no login was stored")


def _needed(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise UsageError(f"environment lacks {name}")
    return value


def _token_day(time_s: float) -> int:
    """Return the number of a day that begins at six in the morning in India."""
    return day_number(time_s - _ENDS_AT)
