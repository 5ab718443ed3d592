"""A client for one command, with the stored login of an earlier one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, TypeAlias, TypeVar

import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.stored_login import LoginFile, StoredLogin
from neo_async.client import NeoClient
from neo_async.config import ConnectionSettings, Credentials, Endpoints, PoolLimits, cache_directory
from neo_async.errors import TransportError, UsageError, WrongMpin
from neo_async.model.session import Session

T = TypeVar("T")

Fresh: TypeAlias = Annotated[
    bool, typer.Option("--fresh", help="Log in again instead of using the stored login.")
]

_CONNECTIONS = ConnectionSettings(pool=PoolLimits(warm=1, maximum=1))
"""A command sends one order at most."""


def halt_on_sigusr1(neo: NeoClient) -> None:
    """Make `kill -USR1` of a long-running command cancel every open order; Windows has no such
    signal."""
    with contextlib.suppress(AttributeError, UsageError):
        neo.halt_on_signal(signal.SIGUSR1)


class Account:
    """The account given by the environment, and its stored login."""

    def __init__(self) -> None:
        self.credentials = Credentials.from_env()
        self.endpoints = Endpoints.from_env()
        self.file = LoginFile(cache_directory(), self.credentials, self.endpoints)

    def __str__(self) -> str:
        return f"account {self.credentials.ucc} at {self.endpoints.login}"

    @contextlib.asynccontextmanager
    async def connect(
        self, *, fresh: bool = False, totp: str | None = None
    ) -> AsyncIterator[NeoClient]:
        """Return a logged-in client. A login made here, or renewed in the block, is stored."""
        neo = NeoClient(self.credentials, endpoints=self.endpoints, connections=_CONNECTIONS)
        stored = self.file.load()
        try:
            if fresh or totp is not None or not await _resume(neo, stored):
                await self._login(neo, stored, totp)
            session = neo.session
            try:
                yield neo
            finally:
                if neo.session is not session:
                    self._keep(neo.session)
        finally:
            await neo.logout()

    def read(self, call: Callable[[NeoClient], Awaitable[T]], *, fresh: bool = False) -> T:
        """Make one call on an event loop of its own."""

        async def read() -> T:
            async with self.connect(fresh=fresh) as neo:
                return await call(neo)

        return neo_async.run(read())

    async def _login(self, neo: NeoClient, stored: StoredLogin | None, totp: str | None) -> None:
        if totp is None:
            if not self.credentials.totp_secret:
                raise UsageError(
                    "no login is stored, and NEO_TOTP_SECRET is not set to make one: "
                    "neo-async login --totp CODE"
                )
            wait = stored.seconds_to_next_code(time.time()) if stored else 0.0
            if wait:
                note = f"the present TOTP code has been used: waiting {wait:.0f} s for the next"
                output.echo(note, err=True)
                await asyncio.sleep(wait)
        try:
            await neo.login(totp)
        except WrongMpin:
            self._keep(None)  # the code was right, and cannot be used again
            raise
        self._keep(neo.session)

    def _keep(self, session: Session | None) -> None:
        try:
            self.file.save(StoredLogin(session=session, made_at=time.time()))
        except OSError as error:
            # This command does not need it; the next one will have to log in.
            output.echo(f"the login could not be stored in {self.file.path}: {error}", err=True)


async def _resume(neo: NeoClient, stored: StoredLogin | None) -> bool:
    """Continue with a stored login. Return whether that worked."""
    if stored is None or stored.session is None or not stored.is_good(time.time()):
        return False
    try:
        await neo.resume(stored.session)
    except TransportError:
        return False  # the server is unreachable; a login gives today's address
    return True
