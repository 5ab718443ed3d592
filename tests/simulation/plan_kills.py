"""A bot with exit plans that is killed with SIGKILL at a named step, and restarts on its journal.

The bot keeps one bracket open on each of a few shares. It kills itself before a request of a kind
is sent, while it is on its way, or once it is answered, as often as it is started. The prices walk
through stops and targets meanwhile. After the last kill it starts once more and lets every plan
end. Then the exchange's ledger is compared: no position may have been turned round, no step placed
twice, and while the bot runs, no units may be without an exit order for long.

Run as a program, this module is the bot, with its settings as the argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random

import msgspec

from neo_async import (
    Credentials,
    Endpoints,
    NeoClient,
    NeoError,
    OrderSettings,
    OrderType,
    OutcomeUnknown,
    Product,
    RateLimits,
    Segment,
    Side,
    Timeouts,
)
from neo_async.exchange import Exchange
from neo_async.exchange.engine.types import Listing
from neo_async.exits.exits import Exits
from neo_async.exits.rules import Action
from neo_async.exits.runner import PlanRunner
from neo_async.model.session import Session
from neo_async.wire.tags import own_tag, step_of, without_suffix

ROOT = Path(__file__).resolve().parents[2]

STEPS = (
    "entry: before",
    "entry: on its way",
    "entry: after",
    "PlaceExit: before",
    "PlaceExit: on its way",
    "PlaceExit: after",
    "ChangeExit: before",
    "ChangeExit: on its way",
    "ChangeExit: after",
    "CancelExit: before",
    "CancelExit: on its way",
    "CancelExit: after",
    "ReadPosition: before",
    "ReadPosition: after",
)
"""Where the bot kills itself: before a request is sent, in the turn after it was written to the
socket, or once its answer is applied."""
SYMBOLS = ("ITBEES-EQ", "NIFTYBEES-EQ", "GOLDBEES-EQ", "BANKBEES-EQ")
RESOLUTION_TIMEOUT = 1.5
BARE_LOOKS = 300
"""Looks, 20 ms apart, for which units may lack an exit order while the bot runs: a start, and the
resolution timeout of what the kill has left open. That is 6 s; a machine that is busy with other
work gives the looks and the bot less of it alike."""
KILL_SECONDS = 10.0
"""Seconds after which a bot that has not come to its step is killed wherever it is."""
LAST_SECONDS = 60.0


class Settings(msgspec.Struct):
    """The argument of the bot's process."""

    credentials: Credentials
    login_url: str
    session: Session
    journal: str
    step: str
    """One of STEPS; empty for the last start, which opens no plan."""


class PlanKills(msgspec.Struct):
    """What the kills led to. All but the first counts should be zero."""

    kills: int = 0
    by_step: Counter[str] = msgspec.field(default_factory=Counter)
    """Kills at each step; "elsewhere" where the bot did not come to its step in time."""
    plans: int = 0
    turned: int = 0
    bare: int = 0
    doubles: int = 0
    problems: list[str] = []
    seconds: float = 0.0


# --- the bot --------------------------------------------------------------------------------------


def _kill_at(step: str) -> None:
    """Have this process killed at a step."""
    name, _, moment = step.partition(": ")

    def kill() -> None:
        print(f"killed at {step}", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    request = PlanRunner._request
    place_entry = Exits._place_entry

    async def killing(call):  # type: ignore[no-untyped-def]
        if moment == "before":
            kill()
        if moment == "on its way":
            running = asyncio.ensure_future(call)
            for _ in range(3):
                await asyncio.sleep(0)
            kill()
            return await running
        result = await call
        kill()
        return result

    async def killing_request(self: PlanRunner, action: Action) -> None:
        if type(action).__name__ == name:
            await killing(request(self, action))
        else:
            await request(self, action)

    async def killing_entry(self, entry, state):  # type: ignore[no-untyped-def]
        return await killing(place_entry(self, entry, state))

    PlanRunner._request = killing_request  # type: ignore[method-assign]
    if name == "entry":
        Exits._place_entry = killing_entry  # type: ignore[method-assign]


async def run_bot(settings: Settings) -> None:
    neo = NeoClient(
        settings.credentials,
        endpoints=Endpoints(login=settings.login_url),
        limits=RateLimits(orders=500, total=500),
        timeouts=Timeouts(order=0.8, read=0.8),
        journal=settings.journal,
        orders=OrderSettings(resolution_timeout=RESOLUTION_TIMEOUT),
    )
    if settings.step:
        _kill_at(settings.step)
    await neo.resume(settings.session)
    print("ready", flush=True)
    try:
        await neo.instruments.load(Segment.NSE_CM)
        if settings.step:
            await asyncio.gather(*(_trade(neo, symbol) for symbol in SYMBOLS))
        for plan in neo.exits.plans:
            await plan.wait()
    finally:
        await neo.logout()


async def _trade(neo: NeoClient, symbol: str) -> None:
    """Keep one bracket open on a share; every third is closed by its user."""
    dice = Random()
    while True:
        for plan in neo.exits.plans:
            if plan.symbol == symbol and not plan.is_final:
                if dice.random() < 0.3:
                    await plan.cancel(leave_stop=False) if dice.random() < 0.3 else None
                await plan.wait()
        instrument = neo.instruments.find(Segment.NSE_CM, symbol)
        assert instrument is not None
        name = f"nse_cm|{instrument.token}"
        with contextlib.suppress(NeoError, KeyError):
            last = Decimal(str((await neo.market.quotes([name]))[name].last_price))
            tick = Decimal(repr(instrument.tick_size))
            away = max(tick * 3, (last / 200 / tick).to_integral_value() * tick)
            with contextlib.suppress(OutcomeUnknown):
                await neo.exits.bracket(
                    Segment.NSE_CM,
                    symbol,
                    Side.BUY,
                    10,
                    product=Product.MIS,
                    order_type=OrderType.MARKET,
                    stop=last - away,
                    target=last + away,
                    chase=0.5,
                )
        await asyncio.sleep(0.05)


# --- killing it -----------------------------------------------------------------------------------


async def kill_at_steps(rounds: int, *, steps: tuple[str, ...] = STEPS, seed: int = 1) -> PlanKills:
    """Kill the bot `rounds` times at each step."""
    started = time.perf_counter()
    result = PlanKills()
    with tempfile.TemporaryDirectory() as folder:
        async with Exchange(seed=seed, limits=None, cash="999999999.00") as exchange:
            neo = NeoClient(exchange.credentials, endpoints=exchange.endpoints)
            session = await neo.login()
            await neo.logout()
            settings = Settings(
                exchange.credentials,
                exchange.login_url,
                session,
                str(Path(folder, "orders.db")),
                step="",
            )
            market = _Market(exchange, result, Random(f"{seed}|prices"))
            moving = asyncio.create_task(market.run())
            for _ in range(rounds):
                for step in steps:
                    settings.step = step
                    await _run_and_kill(settings, market, result)
            settings.step = ""
            bot = await _start(settings)
            try:
                await asyncio.wait_for(bot.wait(), LAST_SECONDS)
            except TimeoutError:
                bot.kill()
                result.problems.append("the last start has not ended: a plan is not final")
            moving.cancel()
            market.check_end()
    result.seconds = time.perf_counter() - started
    return result


async def _run_and_kill(settings: Settings, market: _Market, result: PlanKills) -> None:
    bot = await _start(settings)
    assert bot.stdout is not None
    output = b""
    try:
        async with asyncio.timeout(KILL_SECONDS):
            output = await bot.stdout.readline()
            market.is_bot_up = output == b"ready\n"
            output += await bot.stdout.read()
    except TimeoutError:
        bot.kill()
    market.is_bot_up = False
    code = await bot.wait()
    if code != -signal.SIGKILL:
        result.problems.append(f"the bot ended by itself, with {code}: {output!r}")
    result.kills += 1
    result.by_step[settings.step if b"killed at" in output else "elsewhere"] += 1


async def _start(settings: Settings) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.simulation.plan_kills",
        msgspec.json.encode(settings).decode(),
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )


class _Market:
    """Moves the prices, and looks at the positions."""

    def __init__(self, exchange: Exchange, result: PlanKills, dice: Random) -> None:
        self._exchange = exchange
        self._result = result
        self._dice = dice
        self.is_bot_up = False
        self._bare_looks: Counter[str] = Counter()
        self._turned: set[str] = set()

    async def run(self) -> None:
        base = {symbol: self._price(self._listing(symbol)) for symbol in SYMBOLS}
        while True:
            await asyncio.sleep(0.02)
            symbol = self._dice.choice(SYMBOLS)
            listing = self._listing(symbol)
            price = round(base[symbol] * self._dice.uniform(0.985, 1.015) / listing.tick)
            self._exchange.market.print_price(listing.segment, listing.token, price * listing.tick)
            self._check()

    def _listing(self, symbol: str) -> Listing:
        listing = self._exchange.market.listing(Segment.NSE_CM, symbol)
        assert listing is not None
        return listing

    def _price(self, listing: Listing) -> int:
        return self._exchange.market.last_price(listing)

    def _check(self) -> None:
        held: Counter[str] = Counter()
        working: Counter[str] = Counter()
        for record in self._exchange.market.ledger:
            symbol, is_entry = record.listing.symbol, record.side is Side.BUY
            held[symbol] += record.filled_quantity if is_entry else -record.filled_quantity
            if not is_entry and not record.status.is_final:
                working[symbol] += record.quantity - record.filled_quantity
        for symbol in SYMBOLS:
            if held[symbol] < 0 and symbol not in self._turned:
                self._turned.add(symbol)
                self._result.turned += 1
                self._result.problems.append(f"turned: {symbol} {held[symbol]}")
            if held[symbol] <= working[symbol] or not self.is_bot_up:
                self._bare_looks[symbol] = 0
                continue
            self._bare_looks[symbol] += 1
            if self._bare_looks[symbol] > BARE_LOOKS:
                self._bare_looks[symbol] = 0
                self._result.bare += 1
                self._result.problems.append(f"bare: {symbol}, {held[symbol]} units")

    def check_end(self) -> None:
        """Compare the ledger once every plan has ended."""
        tags: Counter[str] = Counter()
        plans: set[str] = set()
        for record in self._exchange.market.ledger:
            tag = own_tag(without_suffix(record.client_tag))
            if (found := step_of(tag)) is not None:
                plans.add(found[0])
                tags[tag] += 1
        self._result.plans = len(plans)
        for tag, count in tags.items():
            if count > 1:
                self._result.doubles += count - 1
                self._result.problems.append(f"double: {tag} is there {count} times")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(run_bot(msgspec.json.decode(sys.argv[1], type=Settings)))
