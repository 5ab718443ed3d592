"""The embedded exchange as a server of its own."""

from __future__ import annotations

import asyncio
import shlex
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

import neo_async
from neo_async.cli import output
from neo_async.config import RateLimits
from neo_async.errors import UsageError

if TYPE_CHECKING:
    from neo_async.exchange import Exchange, Faults
    from neo_async.exchange.replay.replay import Replay

_SHOWN = 20
"""Recorded instruments that are listed by name."""

ScripMaster = Annotated[
    list[Path] | None,
    typer.Option(
        "--scripmaster",
        metavar="CSV",
        exists=True,
        dir_okay=False,
        readable=True,
        help="The broker's own instrument file, to trade instead of the built-in instruments; "
        "once for each segment.",
    ),
]


def exchange(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 0,
    scripmaster: ScripMaster = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve https, with a certificate made for it.")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            "--replay",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Play a recording of the market feed as the market, from the first subscription "
            "on.",
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(metavar="X", min=0, help="Of the replay, 1 being its own; 0 does not wait."),
    ] = 1.0,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            dir_okay=False,
            help="Keep accounts, orders, holdings and candles in this file, and go on from it; "
            "made when it is not there.",
        ),
    ] = None,
    accounts: Annotated[int, typer.Option(metavar="N", min=1, help="Accounts there are.")] = 2,
    market_hours: Annotated[
        bool,
        typer.Option(
            "--market-hours",
            help="Trade in the exchanges' sessions only, and end the day with the last of them; "
            "otherwise at any hour.",
        ),
    ] = False,
    faults: Annotated[
        str | None,
        typer.Option(
            "--faults",
            metavar="FILE|JSON",
            help="Let requests and messages go wrong, by chance and from the seed: a JSON file, or "
            """JSON such as '{"lose_after": 0.1, "throttle": 0.05}'.""",
        ),
    ] = None,
    orders_per_second: Annotated[
        int, typer.Option(metavar="N", help="Orders allowed in any second.")
    ] = 10,
    total_per_second: Annotated[
        int | None,
        typer.Option(metavar="N", help="Requests of every kind; by default 10, or as orders."),
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            "--key",
            metavar="KEY",
            envvar="NEO_EXCHANGE_KEY",
            help="Secret of an exchange that other machines can reach: part of the admin URL, and "
            "all accounts' secrets depend on it. Random unless it is given.",
        ),
    ] = "",
    env: Annotated[
        bool,
        typer.Option(
            "--env", help="Print `export` lines on stderr: a shell that reads them trades here."
        ),
    ] = False,
) -> None:
    """Run the exchange until it is interrupted.

    The first line on stdout is one JSON object: the addresses, and the accounts with their made-up
    secrets.
    """
    limits = RateLimits(
        orders=orders_per_second, total=total_per_second or max(10, orders_per_second)
    )
    with tempfile.TemporaryDirectory(prefix="neo-async-") as directory:
        neo_async.run(
            _serve(
                host=host,
                port=port,
                seed=seed,
                scripmaster=scripmaster or [],
                limits=limits,
                replay=replay,
                speed=speed,
                state=state,
                accounts=accounts,
                market_hours=market_hours,
                faults=faults,
                key=key,
                tls_directory=Path(directory) if tls else None,
                env=env,
            )
        )


async def _serve(
    *,
    host: str,
    port: int,
    seed: int,
    scripmaster: list[Path],
    limits: RateLimits,
    replay: Path | None,
    speed: float,
    state: Path | None,
    accounts: int,
    market_hours: bool,
    faults: str | None,
    key: str,
    tls_directory: Path | None,
    env: bool,
) -> None:
    from neo_async.exchange import (
        Behaviour,
        Exchange,
        Faults,
        Hours,
        Recording,
        Rules,
        Security,
    )
    from neo_async.exchange.tls import self_signed

    context, ca_file = self_signed(tls_directory, host) if tls_directory else (None, "")
    hours = Hours.EXCHANGE if market_hours else Hours.ALWAYS
    opening = Exchange(
        seed=seed,
        host=host,
        port=port,
        scripmaster=scripmaster,
        limits=limits,
        recording=Recording(replay, speed) if replay else None,
        state=state,
        accounts=accounts,
        faults=_read_faults(faults) if faults else Faults(),
        behaviour=Behaviour(rules=Rules(hours=hours)),
        security=Security(tls=context, ca_file=ca_file, key=key),
    )
    interrupted = _on_interruption()
    try:
        running = await opening.__aenter__()
    except OSError as error:
        # What follows in brackets is the address once more.
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise UsageError(f"cannot listen on {host}, port {port}: {reason}") from error
    try:
        ready = running.ready() | ({"ca_file": str(ca_file)} if ca_file else {})
        typer.echo(msgspec.json.encode(ready))
        if env:
            for line in _exports(running, str(ca_file)):
                output.echo(line, err=True)
        if running.replay is not None:
            await _print_replay(running.replay, interrupted)
        await interrupted.wait()
    finally:
        await opening.__aexit__(None, None, None)


def _read_faults(text: str) -> Faults:
    """Read faults that are written out, or named by a file that holds them."""
    from neo_async.exchange.faults.settings import read_faults

    if text.lstrip().startswith("{"):
        return read_faults(text)
    try:
        return read_faults(Path(text).read_bytes())
    except OSError as error:
        raise UsageError(f"--faults {text}: {error.strerror}; neither JSON nor a file") from error


async def _print_replay(replay: Replay, interrupted: asyncio.Event) -> None:
    """Print, on stderr, what can be subscribed, and when the recording has ended."""
    instruments = replay.instruments
    for instrument, symbol in list(instruments.items())[:_SHOWN]:
        output.echo(f"recorded: {instrument} {symbol}".rstrip(), err=True)
    if len(instruments) > _SHOWN:
        output.echo(f"recorded: {len(instruments) - _SHOWN} more", err=True)
    waits = [asyncio.create_task(event.wait()) for event in (replay.ended, interrupted)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if replay.ended.is_set():
        damage = f"; the file is damaged behind that: {replay.damage}" if replay.damage else ""
        output.echo(f"the replay has ended after {replay.frames} frames{damage}", err=True)


def _on_interruption() -> asyncio.Event:
    """Set by SIGINT or SIGTERM."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, interrupted.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(interrupted.set))
    return interrupted


def _exports(exchange: Exchange, ca_file: str) -> list[str]:
    credentials = exchange.credentials
    kite, customer = exchange.kite, exchange.bank.client
    variables = {
        "NEO_LOGIN_URL": exchange.login_url,
        "NEO_CONSUMER_KEY": credentials.consumer_key,
        "NEO_MOBILE_NUMBER": credentials.mobile_number,
        "NEO_UCC": credentials.ucc,
        "NEO_MPIN": credentials.mpin,
        "NEO_TOTP_SECRET": credentials.totp_secret,
        "KITE_URL": exchange.kite_url,
        "KITE_API_KEY": kite.api_key,
        "KITE_API_SECRET": kite.api_secret,
        "KITE_ACCESS_TOKEN": kite.access_token,
        "KOTAK_BANK_URL": exchange.bank_url,
        "KOTAK_BANK_CLIENT_ID": customer.client_id,
        "KOTAK_BANK_CLIENT_SECRET": customer.client_secret,
        "KOTAK_BANK_CLIENT_NAME": customer.name,
        "KOTAK_BANK_PHYSICAL_ACCOUNT": customer.physical_accounts[0],
    }
    if ca_file:
        variables |= {"NEO_CA_FILE": ca_file, "KITE_CA_FILE": ca_file}
    elif exchange.endpoints.insecure:
        variables |= dict.fromkeys(("NEO_INSECURE", "KITE_INSECURE", "KOTAK_BANK_INSECURE"), "1")
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
