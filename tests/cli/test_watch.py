"""neo-async watch: what it shows of an account as it moves, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from neo_async import (
    Level,
    NeoClient,
    OrderStatus,
    Product,
    Segment,
    Side,
)
from neo_async.base.text import shown
from neo_async.cli.watch.lines import plain_line, snapshot
from neo_async.cli.watch.screen import board, compact, shares
from neo_async.cli.watch.state import USUAL, Watched
from neo_async.exchange import Exchange, Faults
from neo_async.execution.order import Order
from neo_async.model.ticks import ScripTick
from tests.cli.conftest import Invoke
from tests.cli.terminal import interrupted

COMMAND = (sys.executable, "-m", "neo_async", "watch")
TCS, INFY = "nse_cm|11536", "nse_cm|1594"

needs_signals = pytest.mark.skipif(os.name != "posix", reason="ends by a POSIX signal")


@contextlib.asynccontextmanager
async def client(exchange: Exchange) -> AsyncIterator[NeoClient]:
    async with NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo:
        yield neo


@contextlib.asynccontextmanager
async def watching(
    *chosen: str, level: Level = Level.SCRIP
) -> AsyncIterator[tuple[Exchange, NeoClient, Watched]]:
    async with (
        Exchange(seed=5, market_makers=False) as exchange,
        client(exchange) as neo,
        Watched(neo, chosen, level) as watched,
    ):
        yield exchange, neo, watched


@contextlib.asynccontextmanager
async def second_client(exchange: Exchange, first: NeoClient) -> AsyncIterator[NeoClient]:
    """With the login of the first: a TOTP code works once."""
    neo = NeoClient(exchange.credentials, endpoints=exchange.endpoints)
    await neo.resume(first.session)
    try:
        yield neo
    finally:
        await neo.logout()


async def until(condition: Callable[[], object], watched: Watched) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await watched.look()
            await asyncio.sleep(0.01)


async def buy(neo: NeoClient, symbol: str, quantity: int, price: str) -> Order:
    return await neo.orders.place(
        Segment.NSE_CM, symbol, Side.BUY, quantity, price=price, product=Product.MIS
    )


def drawn(watched: Watched, width: int = 140, height: int = 45) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, height=10_000, highlight=False)
    console.print(board(watched, width, height))
    return file.getvalue().splitlines()


def secrets(exchange: Exchange, neo: NeoClient) -> list[str]:
    own, session = exchange.credentials, neo.session
    return [
        own.consumer_key,
        own.mobile_number,
        own.mpin,
        own.totp_secret,
        session.token,
        session.sid,
    ]


# --- five levels of each book ---------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (160, 50)])
async def test_depth_shows_five_levels_of_a_book(width: int, height: int) -> None:
    async with (
        Exchange(seed=5) as exchange,
        client(exchange) as neo,
        Watched(neo, [TCS, INFY], Level.DEPTH) as watched,
    ):
        await until(lambda: watched.seen.keys() == {TCS, INFY}, watched)
        lines = drawn(watched, width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        start = next(number for number, line in enumerate(lines) if "TCS-EQ" in line)
        tick = watched.seen[TCS].tick
        assert isinstance(tick, ScripTick)
        for line, bid, ask in zip(lines[start:], tick.bids, tick.asks, strict=False):
            figures = line.split()
            for row in (bid, ask):
                assert {f"{row.price:,.2f}", f"{row.quantity:,}"} <= set(figures)
        assert len(tick.bids) == len(tick.asks) == 5
        assert any("INFY-EQ" in line for line in lines)


async def test_a_long_quantity_is_never_cut() -> None:
    async with watching(TCS) as (_, neo, watched):
        await buy(neo, "TCS-EQ", 29_000, "2050")
        await until(lambda: watched.orders, watched)
        assert any("0/29,000 " in line for line in drawn(watched, 80, 24))


# --- what is watched ------------------------------------------------------------------------------


async def test_an_account_without_business_watches_what_trades_a_lot() -> None:
    async with watching() as (_, _, watched):
        assert watched.instruments == list(USUAL)
        await until(lambda: watched.seen.keys() == set(USUAL), watched)
        labels = [watched.label(instrument) for instrument in USUAL]
        assert labels[:2] == ["Nifty 50", "RELIANCE-EQ"]
        assert not watched.notices


async def test_open_orders_and_positions_say_what_to_watch() -> None:
    async with Exchange(seed=5) as exchange, client(exchange) as neo:
        filled = await buy(neo, "TCS-EQ", 5, "2200")
        await filled.wait(timeout=5)
        await buy(neo, "INFY-EQ", 1, "1400")
        async with Watched(neo, [], Level.LITE) as watched:
            assert watched.instruments == [TCS, INFY]
            await until(lambda: watched.seen.keys() == {TCS, INFY}, watched)


async def test_an_instrument_that_gets_an_order_is_watched_from_then_on() -> None:
    async with watching() as (_, neo, watched):
        order = await buy(neo, "ITBEES-EQ", 1, "35")
        await until(lambda: len(watched.instruments) == len(USUAL) + 1, watched)
        await neo.orders.cancel(order)
        await until(lambda: watched.orders[0].is_final, watched)
        assert watched.label(watched.instruments[-1]) == "ITBEES-EQ"


async def test_chosen_instruments_stay_alone_and_positions_are_valued_all_the_same() -> None:
    async with watching(INFY) as (exchange, neo, watched):
        exchange.market.print_price(Segment.NSE_CM, "11536", 2_100_00)
        order = await neo.orders.place(
            Segment.NSE_CM, "TCS-EQ", Side.SELL, 10, price="2100", product=Product.CNC
        )
        exchange.market.print_price(Segment.NSE_CM, "11536", 2_100_00)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await until(lambda: TCS in watched.seen, watched)
        exchange.market.print_price(Segment.NSE_CM, "11536", 2_095_00)
        total = neo.portfolio.live.total
        await until(lambda: total().pnl == 50.0, watched)
        assert watched.instruments == [INFY]
        assert "+50.00" in "\n".join(drawn(watched))


async def test_orders_move_from_state_to_state() -> None:
    async with watching(TCS) as (exchange, neo, watched):
        order = await buy(neo, "TCS-EQ", 10, "2100")
        await until(lambda: "open" in "\n".join(drawn(watched)), watched)
        assert "orders 1: open 1" in plain_line(watched)
        exchange.market.print_price(Segment.NSE_CM, "11536", 2_100_00)
        await order.wait(OrderStatus.COMPLETE, timeout=5)
        await until(lambda: watched.orders[0].is_final, watched)
        text = "\n".join(drawn(watched))
        assert "open → complete" in text
        assert "10/10" in text


async def test_an_order_of_which_the_feed_told_nothing_is_there_after_a_reconnect() -> None:
    async with watching(TCS) as (exchange, neo, watched):
        await until(lambda: watched.order_feed.is_live, watched)
        exchange.faults.set(Faults(feed_lose=1))
        async with second_client(exchange, neo) as other:
            await buy(other, "TCS-EQ", 1, "2000")
        assert not watched.orders
        exchange.feeds.drop_connections()
        await until(lambda: watched.orders, watched)
        await until(lambda: watched.order_feed.is_live and watched.feed.is_live, watched)
        assert watched.feed.reconnects == watched.order_feed.reconnects == 1
        notices = "\n".join(text for _, text in watched.notices)
        assert "market feed lost" in notices
        assert "order feed live again after" in notices


async def test_states_told_anew_at_connecting_are_not_late() -> None:
    async with Exchange(seed=5, market_makers=False) as exchange, client(exchange) as neo:
        await buy(neo, "TCS-EQ", 1, "2000")
        async with second_client(exchange, neo) as other:
            heard: list[object] = []
            other.order_feed.subscribe(heard.append)
            async with Watched(other, [TCS], Level.LITE) as watched:
                await until(lambda: heard, watched)
                assert not watched.update_delays
                await buy(neo, "TCS-EQ", 1, "2000")
                await until(lambda: watched.update_delays, watched)
                assert max(watched.update_delays) < 5


async def test_a_refused_subscription_is_a_notice() -> None:
    async with watching("nse_cm|999999") as (_, _, watched):
        watched.feed.refusals.append("no such scrip")
        await watched.look()
        assert watched.notices[0][1] == "not subscribed: no such scrip"
        assert "no tick" in "\n".join(drawn(watched))


# --- how it looks ---------------------------------------------------------------------------------


async def test_the_board_fits_every_terminal() -> None:
    sizes = ((80, 24), (140, 45), (120, 18), (200, 60), (79, 30), (60, 22), (40, 12))
    async with watching(level=Level.DEPTH) as (_, neo, watched):
        for price in range(2000, 2006):
            await buy(neo, "TCS-EQ", 1, str(price))
        await until(lambda: len(watched.seen) == len(USUAL), watched)
        boards = {size: drawn(watched, *size) for size in sizes}
    for (width, height), lines in boards.items():
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        assert any("market" in line and "live" in line for line in lines)


def test_room_goes_where_it_is_wished() -> None:
    assert shares(9, (7, 0, 1)) == [7, 1, 1]
    assert shares(9, (20, 20, 2)) == [4, 3, 2]
    assert shares(9, (2, 1, 1)) == [2, 1, 6]
    assert sum(shares(2, (5, 5, 5))) == 3  # one each, however little room there is


def test_large_numbers_take_six_letters() -> None:
    numbers = (0, 99_999, 100_000, 999_400, 1_234_567, 12_345_678_901)
    assert [compact(number) for number in numbers] == [
        "0",
        "99,999",
        "100k",
        "999k",
        "1.235M",
        "12.35B",
    ]


def test_words_of_the_broker_cannot_move_the_cursor() -> None:
    assert shown("\x1b[2Jrejected\n") == r"\x1b[2Jrejected\n"


async def test_no_secret_is_shown() -> None:
    async with watching() as (exchange, neo, watched):
        await buy(neo, "TCS-EQ", 1, "2000")
        exchange.end_sessions()
        exchange.feeds.drop_connections()
        await until(lambda: watched.notices, watched)
        shown = "\n".join(
            [*drawn(watched), plain_line(watched), json.dumps(snapshot(watched), default=str)]
        )
        for secret in secrets(exchange, neo):
            assert secret not in shown


# --- how it runs ----------------------------------------------------------------------------------


def _start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        **options,
    )


@needs_signals
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_pipe_gets_plain_lines_until_the_end(
    exchange: Exchange, invoke: Invoke, end: signal.Signals
) -> None:
    invoke("login")
    with _start("nse_cm:11536", "--refresh", "0.25") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(end)
        rest, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert all(line.isprintable() for line in "".join([*lines, rest]).splitlines())
    assert "market feed live" in lines[-1]
    assert "TCS-EQ 2,117.00 +0.00%" in lines[-1]
    assert lines[-1].endswith("| orders 0 | P&L 0.00\n")


@needs_signals
def test_machines_get_an_object_a_line(exchange: Exchange, invoke: Invoke) -> None:
    invoke("place", "nse_cm", "TCS-EQ", "buy", "5", "--product", "MIS", "--price", "2100", "--yes")
    with _start("--json", "--level", "depth", "--refresh", "0.25") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    *_, last = map(json.loads, [*lines, *rest.splitlines()])
    assert last["market_feed"]["state"] == last["order_feed"]["state"] == "live"
    (tick,) = last["ticks"]
    assert (tick["instrument"], tick["symbol"], tick["last_price"]) == (TCS, "TCS-EQ", 2117.0)
    (order,) = last["orders"]
    assert (order["status"], order["quantity"], order["price"]) == ("open", 5, "2100.0")
    assert (last["positions"], last["pnl"]) == ([], 0.0)


@needs_signals
def test_sigusr1_cancels_what_is_open(exchange: Exchange, invoke: Invoke) -> None:
    place = (
        "place",
        "nse_cm",
        "TCS-EQ",
        "buy",
        "5",
        "--product",
        "MIS",
        "--price",
        "2100",
        "--yes",
    )
    invoke(*place)
    invoke(*place)
    with _start("--json", "--refresh", "0.25") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not all(order.status.is_final for order in exchange.market.ledger):
            assert time.monotonic() < deadline
            process.stdout.readline()  # it goes on watching
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert [order.status for order in exchange.market.ledger] == [OrderStatus.CANCELLED] * 2
    assert "(signal SIGUSR1): no order is placed or changed" in errors


@needs_signals
def test_a_reader_that_goes_ends_it_without_a_word(exchange: Exchange, invoke: Invoke) -> None:
    invoke("login")
    with _start("--refresh", "0.25") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@needs_signals
def test_ctrl_c_at_a_terminal_restores_it(exchange: Exchange, invoke: Invoke, cache: Path) -> None:
    invoke("login")
    exit_code, shown = interrupted(COMMAND, at=b"RELIANCE-EQ")
    assert exit_code == 0
    assert b"Traceback" not in shown
    assert b"24,412.35" in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") > -1  # the cursor is back
    assert shown.rfind(b"\x1b[?1049l") > shown.rfind(b"\x1b[?1049h") > -1  # and what was there
    (file,) = cache.glob("login-*.json")
    session = json.loads(file.read_bytes())["session"]
    own = exchange.credentials
    for secret in (own.consumer_key, own.mpin, own.totp_secret, session["token"], session["sid"]):
        assert secret.encode() not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nse:TCS",), "INSTRUMENT 'nse:TCS'"),
        (("nse_cm:TCX",), "no such symbol in nse_cm: did you mean TCS-EQ (token 11536)?"),
        (("--refresh", "0.01"), "--refresh '0.01': must be a number of seconds from 0.25"),
    ],
)
def test_what_cannot_be_watched_is_one_line(
    arguments: tuple[str, ...], words: str, exchange: Exchange, invoke: Invoke
) -> None:
    outcome = invoke("watch", *arguments)
    assert outcome.exit_code == 2
    assert words in outcome.everything
    assert outcome.everything.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line(
    exchange: Exchange, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO_LOGIN_URL", "http://127.0.0.1:1")
    outcome = invoke("watch")
    assert outcome.exit_code == 1
    assert outcome.everything.startswith("neo-async: ")
    assert outcome.everything.count("\n") == 1


# --- exit plans -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
async def test_the_plans_in_the_journal_of_a_bot_are_shown(
    width: int, height: int, tmp_path: Path
) -> None:
    journal = tmp_path / "orders.db"
    async with Exchange(seed=5) as exchange:
        bot = NeoClient(exchange.credentials, endpoints=exchange.endpoints, journal=journal)
        async with bot:
            await bot.instruments.load(Segment.NSE_CM)
            plan = await bot.exits.bracket(
                TCS, "buy", 5, product="MIS", price="2000", stop="1950", target="2900"
            )
            own = NeoClient(exchange.credentials, endpoints=exchange.endpoints)
            await own.resume(bot.session)
            async with Watched(own, [TCS], Level.SCRIP, journal=journal) as watched:
                await until(lambda: watched.plans, watched)
                lines = drawn(watched, width, height)
                (shown_plan,) = snapshot(watched)["plans"]
                line = plain_line(watched)
            await own.logout()
            async with Watched(bot, [TCS], Level.SCRIP) as of_the_bot:
                assert [one.plan for one in of_the_bot.plans] == [plan.id]
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    (row,) = [text for text in lines if "1,950.00" in text]
    assert {"TCS-EQ", "0/5", "1,950.00", "entering"} <= set(row.split())
    assert any("Plans 1" in text for text in lines)
    assert (shown_plan["plan"], shown_plan["stop"]) == (plan.id, 1950.0)
    assert " | plans 1 | " in line


async def test_an_account_without_plans_has_no_panel_of_them(tmp_path: Path) -> None:
    async with watching(TCS) as (_, neo, watched):
        await watched.look()
        assert watched.plans == []
        assert not any("Plans" in line for line in drawn(watched))
        assert "exits" not in vars(neo)
    text = tmp_path / "text.db"
    text.write_text("no journal")
    async with (
        Exchange(seed=5) as exchange,
        client(exchange) as neo,
        Watched(neo, [TCS], Level.SCRIP, journal=text) as watched,
    ):
        await watched.look()
        assert "cannot be read" in watched.notices[-1][1]
