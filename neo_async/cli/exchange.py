"""The embedded exchange as a server of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

import neo_async
from neo_async.cli import output
from neo_async.cli.exchange_output import (
    greeting,
    print_replay,
    remove_environment,
    write_environment,
)
from neo_async.config import RateLimits
from neo_async.errors import UsageError

if TYPE_CHECKING:
    from neo_async.exchange import Behaviour, Faults


class RulesOf(StrEnum):
    """The rules of a market by the time from which they are."""

    TODAY = "2026"
    OLD = "before-2026"


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
        Path | None,
        typer.Option(
            "--env",
            metavar="FILE",
            dir_okay=False,
            help="Write the exports with which another shell trades here to this file, as soon as "
            "the exchange is ready; removed at the end. - prints them on stderr.",
        ),
    ] = None,
    rules: Annotated[
        RulesOf,
        typer.Option(
            help="2026: CO, BO and SL-M are refused, as the live broker does since April 2026; "
            "before-2026: they are accepted."
        ),
    ] = RulesOf.TODAY,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of market, broker, feeds or bank, such as static_ips=127.0.0.1; may be "
            "repeated. The page on the simulator lists all.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the ready line for programs, at a terminal too."),
    ] = False,
) -> None:
    """Run the exchange until it is interrupted.

    A program gets one line of JSON on stdout: the addresses, and the accounts with their made-up
    secrets. A person at a terminal gets the same in words.
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
                behaviour=_behaviour(rules, market_hours, settings or []),
                faults=faults,
                key=key,
                tls_directory=Path(directory) if tls else None,
                env=env,
                is_greeted=sys.stdout.isatty() and not as_json,
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
    behaviour: Behaviour,
    faults: str | None,
    key: str,
    tls_directory: Path | None,
    env: Path | None,
    is_greeted: bool,
) -> None:
    from neo_async.exchange import Exchange, Faults, Recording, Security
    from neo_async.exchange.tls import self_signed

    context, ca_file = self_signed(tls_directory, host) if tls_directory else (None, "")
    opening = Exchange(
        seed=seed,
        host=host,
        port=port,
        scripmaster=scripmaster,
        limits=limits,
        recording=Recording(replay, speed) if replay else None,
        state=state,
        accounts=accounts,
        faults=read_fault_text(faults) if faults else Faults(),
        behaviour=behaviour,
        security=Security(tls=context, ca_file=ca_file, key=key),
    )
    interrupted = _on_interruption()
    if env is not None:
        remove_environment(env)  # of another exchange, which a waiting shell would take for this
    try:
        running = await opening.__aenter__()
    except OSError as error:
        # What follows in brackets is the address once more.
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise UsageError(f"cannot listen on {host}, port {port}: {reason}") from error
    try:
        if env is not None:
            write_environment(env, running, str(ca_file))
        if is_greeted:
            for line in greeting(running, str(ca_file), env):
                output.echo(line)
        else:
            ready = running.ready() | ({"ca_file": str(ca_file)} if ca_file else {})
            typer.echo(msgspec.json.encode(ready))
        if running.replay is not None:
            await print_replay(running.replay, interrupted)
        await interrupted.wait()
    finally:
        if env is not None:
            remove_environment(env)
        await opening.__aexit__(None, None, None)


def _behaviour(rules: RulesOf, market_hours: bool, settings: list[str]) -> Behaviour:
    """Return the behaviour that the options ask for; `--set` decides over the others."""
    from neo_async.exchange import Behaviour, Hours, Rules
    from neo_async.exchange.switches import read_switches, with_switches

    hours = Hours.EXCHANGE if market_hours else Hours.ALWAYS
    chosen = Rules.before_2026(hours=hours) if rules is RulesOf.OLD else Rules(hours=hours)
    return with_switches(Behaviour(rules=chosen), read_switches(settings))


def read_fault_text(text: str) -> Faults:
    """Read faults that are written out, or named by a file that holds them."""
    from neo_async.exchange.faults.settings import read_faults

    if text.lstrip().startswith("{"):
        return read_faults(text)
    try:
        return read_faults(Path(text).read_bytes())
    except OSError as error:
        raise UsageError(f"--faults {text}: {error.strerror}; neither JSON nor a file") from error


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
