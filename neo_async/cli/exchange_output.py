"""What `neo-async exchange` prints for its user, and the environment that leads other shells to it.

Everything on stderr is a comment to a shell, so that a file of it can be sourced.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from neo_async.cli import output
from neo_async.system import files

if TYPE_CHECKING:
    from neo_async.exchange import Exchange
    from neo_async.exchange.replay.replay import Replay

STDERR: Final = Path("-")
"""Name of an environment file that means stderr."""

ADMIN_URL: Final = "NEO_EXCHANGE_ADMIN_URL"
"""Variable that leads `neo-async paper` to the exchange's control surface."""

_SHOWN: Final = 20
"""Recorded instruments that are listed by name."""

_NEEDED: Final = frozenset(
    {
        *("NEO_LOGIN_URL", "NEO_CONSUMER_KEY", "NEO_MOBILE_NUMBER", "NEO_UCC", "NEO_MPIN"),
        *("NEO_TOTP_SECRET", "NEO_CA_FILE", "NEO_INSECURE", ADMIN_URL),
    }
)
"""Variables that a person needs for trading here; the rest is for mutual funds and the bank."""


# --- the environment ------------------------------------------------------------------------------


def exports(exchange: Exchange, ca_file: str) -> list[str]:
    """Return the lines that set the environment of a shell that trades here."""
    return [f"export {name}={shlex.quote(value)}" for name, value in _variables(exchange, ca_file)]


def write_environment(path: Path, exchange: Exchange, ca_file: str) -> None:
    """Write the environment to a file of mode 0600, which is there as a whole or not at all; `-`
    prints it on stderr."""
    lines = exports(exchange, ca_file)
    if path == STDERR:
        for line in lines:
            output.echo(line, err=True)
    else:
        files.replace(path, ["".join(f"{line}\n" for line in lines).encode()])


def remove_environment(path: Path) -> None:
    """Remove the file: what it leads to is not there any more, or not yet."""
    if path != STDERR:
        path.unlink(missing_ok=True)


def _variables(exchange: Exchange, ca_file: str) -> Iterator[tuple[str, str]]:
    credentials = exchange.credentials
    kite, customer = exchange.kite, exchange.bank.client
    yield "NEO_LOGIN_URL", exchange.login_url
    yield "NEO_CONSUMER_KEY", credentials.consumer_key
    yield "NEO_MOBILE_NUMBER", credentials.mobile_number
    yield "NEO_UCC", credentials.ucc
    yield "NEO_MPIN", credentials.mpin
    yield "NEO_TOTP_SECRET", credentials.totp_secret
    yield ADMIN_URL, exchange.admin_url
    yield "KITE_URL", exchange.kite_url
    yield "KITE_API_KEY", kite.api_key
    yield "KITE_API_SECRET", kite.api_secret
    yield "KITE_ACCESS_TOKEN", kite.access_token
    yield "KOTAK_BANK_URL", exchange.bank_url
    yield "KOTAK_BANK_CLIENT_ID", customer.client_id
    yield "KOTAK_BANK_CLIENT_SECRET", customer.client_secret
    yield "KOTAK_BANK_CLIENT_NAME", customer.name
    yield "KOTAK_BANK_PHYSICAL_ACCOUNT", customer.physical_accounts[0]
    if ca_file:
        yield "NEO_CA_FILE", ca_file
        yield "KITE_CA_FILE", ca_file
    elif exchange.endpoints.insecure:
        for name in ("NEO_INSECURE", "KITE_INSECURE", "KOTAK_BANK_INSECURE"):
            yield name, "1"


# --- the greeting ---------------------------------------------------------------------------------


def greeting(exchange: Exchange, ca_file: str, environment: Path | None) -> list[str]:
    """Return what is printed at a terminal, in lines of 80 columns where the addresses
    allow."""
    first, *others = (account.ucc for account in exchange.accounts)
    lines = [
        f"Paper exchange, open at {exchange.login_url}",
        f"Accounts: {first}, which holds some stock{''.join(f', {ucc}' for ucc in others)}",
        "",
    ]
    if environment is None or environment == STDERR:
        lines.append("In another shell, first paste this:")
        needed = (f"export {name}=" for name in _NEEDED)
        lines += [line for line in exports(exchange, ca_file) if line.startswith(tuple(needed))]
    else:
        lines.append("In another shell:")
        source = environment if environment.is_absolute() else Path(".", environment)
        text = str(source) if source.is_absolute() else f"./{source}"
        lines.append(f"  . {shlex.quote(text)}")
    lines += [
        "",
        "Then, for example:",
        "  neo-async place nse_cm ITBEES-EQ buy 10 --price 39.40",
        "  neo-async orders",
        "  neo-async paper price RELIANCE-EQ 1420",
        "",
        "For programs: neo-async exchange --json --env FILE. Ctrl-C ends the exchange.",
    ]
    return lines


# --- a replay -------------------------------------------------------------------------------------


async def print_replay(replay: Replay, interrupted: asyncio.Event) -> None:
    """Print, on stderr, what can be subscribed, and when the recording has ended."""
    instruments = replay.instruments
    for instrument, symbol in list(instruments.items())[:_SHOWN]:
        _notice(f"recorded: {instrument} {symbol}".rstrip())
    if len(instruments) > _SHOWN:
        _notice(f"recorded: {len(instruments) - _SHOWN} more")
    waits = [asyncio.create_task(event.wait()) for event in (replay.ended, interrupted)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if replay.ended.is_set():
        damage = f"; the file is damaged behind that: {replay.damage}" if replay.damage else ""
        _notice(f"the replay has ended after {replay.frames} frames{damage}")


def _notice(text: str) -> None:
    """Print a notice as a comment: stderr may be a file that a shell sources."""
    output.echo(f"# {text}", err=True)
