"""The account that a command is for, and a client with its stored login."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer

import neo_async
from neo_async.account.accounts import endpoints_of
from neo_async.base.env_file import read_env_file
from neo_async.client import NeoClient
from neo_async.config import ConnectionSettings, Credentials, Endpoints, PoolLimits
from neo_async.errors import UsageError
from neo_async.session.session_file import default_path, forget_login, stored_logins
from neo_async.system import files
from neo_async.transport.hidden import Hidden

T = TypeVar("T")

Fresh: TypeAlias = Annotated[
    bool, typer.Option("--fresh", help="Log in again instead of using the stored login.")
]

_CONNECTIONS = ConnectionSettings(pool=PoolLimits(warm=1, maximum=1))
"""A command sends one order at most."""


class _Chosen:
    """The account that `--account` names; set anew for every command."""

    account: str | None = None


def choose_account(name: str | None) -> None:
    """Have the command work for an account of the accounts file, or for the environment's."""
    _Chosen.account = name


def load_env_file(path: Path) -> None:
    """Add the variables of a file to the environment.

    Raises UsageError when a variable is set already, to another value: the environment is never
    overridden, and a mixture of two accounts is none.
    """
    try:
        with files.open_regular(path) as file:
            found = read_env_file(file.read().decode())
    except OSError as error:
        raise UsageError(f"--env-file {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--env-file {path}: {error}") from None
    different = [name for name, value in found.items() if os.environ.get(name, value) != value]
    if different:
        raise UsageError(
            f"--env-file {path}: {', '.join(different)} set to something else in the environment: "
            "unset there, or leave the option out"
        )
    os.environ.update(found)


def chosen_credentials() -> Credentials:
    """Return the credentials that `--account` names, or those of the environment."""
    if _Chosen.account is not None:
        return Credentials.from_file(account=_Chosen.account)
    return Credentials.from_env()


def key_only() -> Credentials:
    """Return credentials for what needs no login, which may be a consumer key alone. Raises
    UsageError."""
    if _Chosen.account is not None:
        return Credentials.from_file(account=_Chosen.account)
    key = Hidden(os.environ.get("NEO_CONSUMER_KEY", ""))
    if not key.value:
        raise UsageError(
            "environment lacks NEO_CONSUMER_KEY, which the broker asks for even where no login is "
            "needed; `neo-async exchange --env FILE` runs an exchange on paper, without an account"
        )
    return Credentials(consumer_key=key.value)


def halt_on_sigusr1(neo: NeoClient) -> None:
    """Make `kill -USR1` of a long-running command cancel every open order; Windows has no such
    signal."""
    with contextlib.suppress(AttributeError, UsageError):
        neo.halt_on_signal(signal.SIGUSR1)


def mode_of(*, is_paper: bool) -> str:
    return "paper" if is_paper else "live"


class Account:
    """The account given by the environment or the accounts file, and its stored login."""

    def __init__(self) -> None:
        self.credentials = chosen_credentials()
        self.endpoints = endpoints_of(self.credentials)
        self.path = session_path(self.credentials, self.endpoints)

    def __str__(self) -> str:
        mode = mode_of(is_paper=self.endpoints.is_paper)
        return f"account {self.credentials.ucc} at {self.endpoints.login}: {mode}"

    @contextlib.asynccontextmanager
    async def connect(
        self,
        *,
        fresh: bool = False,
        totp: str | None = None,
        journal: Path | None = None,
        connections: ConnectionSettings = _CONNECTIONS,
    ) -> AsyncIterator[NeoClient]:
        """Return a logged-in client. A login made here, or renewed in the block, is stored."""
        neo = NeoClient(
            self.credentials,
            endpoints=self.endpoints,
            session=self.path,
            connections=connections,
            journal=journal,
        )
        try:
            await self._login(neo, fresh, totp)
            yield neo
        finally:
            await neo.logout()

    def read(self, call: Callable[[NeoClient], Awaitable[T]], *, fresh: bool = False) -> T:
        """Make one call on an event loop of its own."""

        async def read() -> T:
            async with self.connect(fresh=fresh) as neo:
                return await call(neo)

        return neo_async.run(read())

    async def _login(self, neo: NeoClient, fresh: bool, totp: str | None) -> None:
        try:
            await neo.login(totp, fresh=fresh)
        except UsageError as error:
            if totp is None and not self.credentials.totp_secret:
                raise UsageError(
                    "no login is stored, and there is no TOTP secret to make one: "
                    "neo-async login --totp CODE"
                ) from error
            raise


def session_path(credentials: Credentials, endpoints: Endpoints) -> Path:
    """Return the file of the login: NEO_SESSION_FILE, or the one that `session=True` takes."""
    given = os.environ.get("NEO_SESSION_FILE")
    return Path(given).expanduser() if given else default_path(credentials, endpoints)


def forget_logins() -> list[tuple[str, str]]:
    """Delete the stored login of the account, or of all accounts at the server when the
    environment names none. Return client code and server of each. Raises OSError."""
    try:
        credentials = chosen_credentials()
    except UsageError:
        if _Chosen.account is not None:
            raise
        credentials = None
    endpoints = Endpoints.from_env() if credentials is None else endpoints_of(credentials)
    given = os.environ.get("NEO_SESSION_FILE")
    if given:
        paths = [Path(given).expanduser()]
    elif credentials is not None:
        paths = [default_path(credentials, endpoints)]
    else:
        paths = stored_logins()
    ucc = credentials.ucc if credentials is not None else os.environ.get("NEO_UCC", "")
    forgotten = (forget_login(path, endpoints.login, ucc) for path in paths)
    return [(ucc, endpoints.login) for ucc in forgotten if ucc]
