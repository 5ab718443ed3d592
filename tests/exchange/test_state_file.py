from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from neo_async.config import Credentials
from neo_async.errors import UsageError
from neo_async.exchange import Exchange, Hours, Rules
from neo_async.exchange.engine.types import NewOrder
from neo_async.exchange.persistence import persistence as memory
from neo_async.exchange.persistence.store import Store
from neo_async.model.enums import OrderType, Product, Segment, Side
from tests.exchange.callers import START, Caller, Clock, order, trading, visiting
from tests.exchange.serving import Process, exchange_process
from tests.exchange_settings import exchange_with

CANDLES = "/market-data/1.0/historical/details"
TODAY = date(2026, 11, 23)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


async def everything(caller: Caller) -> dict[str, Any]:
    """Whatever an account can learn of its own business and of the market's past."""
    told: dict[str, Any] = {"ledger": (await caller.admin("GET", "ledger")).json()}
    for path in (
        "/quick/user/orders",
        "/quick/user/trades",
        "/quick/user/positions",
        "/portfolio/v1/holdings",
    ):
        told[path] = (await caller.get(path)).json()
    limits = (await caller.post("/quick/user/limits", {})).json()
    told["limits"] = limits | {"TimeStamp": ""}
    for number in [entry["number"] for entry in told["ledger"]][:5]:
        told[number] = (await caller.post("/quick/order/history", {"nOrdNo": number})).json()
    for interval in ("1min", "D"):
        told[interval] = await candles(caller, "2026-11-19", TODAY.isoformat(), interval)
    return told


async def do_some_business(caller: Caller, rng: random.Random, count: int = 40) -> None:
    """Orders of many kinds, some changed or cancelled, some refused, while time passes."""
    numbers: list[str] = []
    for _ in range(count):
        caller.clock.now += rng.random() * 0.7
        price = f"{39.40 + rng.randrange(-15, 16) / 100:.2f}"
        changes: dict[str, object] = {}
        match rng.randrange(8):
            case 0 if numbers:
                number = rng.choice(numbers)
                await caller.post("/quick/order/cancel", {"on": number, "am": "NO"})
                continue
            case 1 if numbers:
                change = {"no": rng.choice(numbers), "pr": price, "pt": "L", "qt": "20"}
                await caller.post("/quick/order/vr/modify", change)
                continue
            case 2:
                changes = {"pt": "MKT", "pr": "0", "tt": "S", "pc": "MIS"}
            case 3:
                changes = {"pt": "SL", "tp": price, "pr": "39.90", "pc": "MIS"}
            case 4:
                changes = {"am": "YES", "pr": price}
            case _:
                quantity = str(rng.randrange(1, 5_000))
                changes = {"pr": price, "tt": rng.choice("BS"), "qt": quantity, "pc": "MIS"}
        number = (await caller.place(**changes)).json().get("nOrdNo")
        if number:
            numbers.append(number)


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_an_exchange_goes_on_where_it_was(file: Path, seed: int) -> None:
    """Whatever had been done, and however often it is closed and opened in between."""
    rng = random.Random(seed)
    now = START
    before: dict[str, Any] = {}
    for _ in range(3):
        async with trading(state=file, market_makers=True, clock=Clock(now)) as caller:
            if before:
                assert await everything(caller) == before
            await do_some_business(caller, rng)
            before = await everything(caller)
            now = caller.clock.now


async def test_what_happens_next_is_as_if_it_had_never_been_closed(file: Path) -> None:
    async with trading(market_makers=True) as caller:
        rng = random.Random(1)
        await do_some_business(caller, rng)
        await do_some_business(caller, rng)
        expected = await everything(caller)
    rng = random.Random(1)
    async with trading(state=file, market_makers=True) as caller:
        await do_some_business(caller, rng)
        now = caller.clock.now
    async with trading(state=file, market_makers=True, clock=Clock(now)) as caller:
        await do_some_business(caller, rng)
        assert await everything(caller) == expected


async def test_a_tag_stays_taken(file: Path) -> None:
    async with trading(state=file) as caller:
        await caller.placed(ig="once")
    async with trading(state=file) as caller:
        assert (await caller.place(ig="once")).json()["stCode"] == 32
        (entry,) = (await caller.admin("GET", "ledger")).json()
        assert entry["arrivals"] == 2
    async with trading(state=file) as caller:
        (entry,) = (await caller.admin("GET", "ledger")).json()
        assert entry["arrivals"] == 2


async def test_logins_end_with_the_process(file: Path) -> None:
    async with trading(state=file) as caller:
        pair = caller.pair
    async with trading(state=file) as caller:
        assert (await caller.get("/quick/user/orders", **pair)).json()["stCode"] == 1003


async def test_a_reset_starts_the_file_over(file: Path) -> None:
    async with trading(state=file) as caller:
        await caller.placed(ig="before")
        await caller.admin("POST", "reset")
        number = await caller.placed(ig="after")
    async with trading(state=file) as caller:
        entries = (await caller.admin("GET", "ledger")).json()
        assert [(entry["number"], entry["client_tag"]) for entry in entries] == [(number, "after")]


async def test_yesterdays_trades_are_candles_of_yesterday(file: Path) -> None:
    price = {"segment": "nse_cm", "token": "19084", "price": "39.5"}
    async with trading(state=file) as caller:
        await caller.admin("POST", "price", json=price)
        await caller.admin("POST", "price", json=price | {"price": "39.7"})
        before = await everything(caller)
    # Opened and closed once more, so that they have been moved out of the journal.
    async with trading(state=file):
        pass
    async with trading(state=file, clock=Clock(START + 86_400)) as caller:
        told = await everything(caller)
        assert told["1min"] == before["1min"]
        assert told["D"][-1] == ["2026-11-23T00:00:00+0530", 39.5, 39.7, 39.5, 39.7, 0, 0]
        assert told["D"][:-1] == before["D"][:-1]
        assert len(told["D"]) == 3


async def test_days_that_the_exchange_has_missed_have_candles(file: Path) -> None:
    """From Monday's close and back to it, the same whenever they are asked for."""
    price = {"segment": "nse_cm", "token": "19084", "price": "39.7"}
    async with trading(state=file) as caller:
        await caller.admin("POST", "price", json=price)
    days: list[Any] = []
    for number in (3, 7):
        async with trading(state=file, clock=Clock(START + number * 86_400)) as caller:
            before, days = days, await candles(caller, "2026-11-19", "2026-11-30", "D")
            assert days[: len(before)] == before
            minutes = await candles(caller, "2026-11-25", "2026-11-25", "1min")
            assert len(minutes) == 375
            (wednesday,) = (row for row in days if row[0].startswith("2026-11-25"))
            assert wednesday[1:4] == [
                minutes[0][1],
                max(row[2] for row in minutes),
                min(row[3] for row in minutes),
            ]
            assert (wednesday[4], wednesday[5]) == (39.7, sum(row[5] for row in minutes))
            assert wednesday[2] > wednesday[3]
    # Without the 24th, a holiday.
    assert [row[0][8:10] for row in days] == ["19", "20", "23", "25", "26", "27"]
    assert {row[4] for row in days[2:]} == {39.7}


async def candles(caller: Caller, first: str, last: str, interval: str) -> list[Any]:
    answered = await caller.request(
        "GET",
        f"{caller.exchange.base_url}{CANDLES}",
        params={
            "neosymbol": "nse_cm|19084",
            "fromdate": first,
            "todate": last,
            "interval": interval,
        },
        headers={"Authorization": caller.credentials.consumer_key},
    )
    rows: list[Any] = answered.json()["data"]["candles"]
    return rows


async def test_cash_stays_as_it_was_begun_with(file: Path) -> None:
    async with trading(state=file, cash="5000.00") as caller:
        expected = (await caller.post("/quick/user/limits", {})).json()["Net"]
        assert expected == "5000.00"
    async with trading(state=file, cash="7000.00") as caller:
        assert (await caller.post("/quick/user/limits", {})).json()["Net"] == expected


async def test_contracts_of_a_later_month_are_listed_when_it_is_opened_then(file: Path) -> None:
    async with trading(state=file) as caller:
        before = await futures(caller)
        await caller.placed(ig="kept")
    later = START + 45 * 86_400
    async with trading(state=file, clock=Clock(later)) as caller:
        after = await futures(caller)
        assert min(after) > "2027-01-07"
        assert set(after) - set(before)
        new = caller.exchange.market.listing(Segment.NSE_FO, "NIFTY27MARFUT")
        assert new is not None
        order = {"es": "nse_fo", "ts": new.symbol, "qt": "65", "pc": "NRML"}
        await caller.placed(**order, pr=f"{new.base_price / 100 * 0.95 // 1:.2f}")
        first, *_, last = (await caller.admin("GET", "ledger")).json()
        assert (first["client_tag"], last["symbol"], last["state"]) == ("kept", new.symbol, "open")
    async with trading(state=file, clock=Clock(later)) as caller:
        assert await futures(caller) == after


async def futures(caller: Caller) -> list[str]:
    answered = await caller.request(
        "GET",
        f"{caller.exchange.base_url}/market-data/1.0/watchlist/expiries",
        params={"exchange": "nse_fo", "underlying": "NIFTY", "instrument_type": "fut"},
        headers={"Authorization": caller.credentials.consumer_key},
    )
    days: list[str] = answered.json()["expiries"]
    return days


async def test_accounts_may_be_added(file: Path) -> None:
    async with trading(state=file) as caller:
        number = await caller.placed()
    async with trading(state=file, accounts=3) as caller:
        third = caller.exchange.accounts[2]
        assert caller.exchange.market.funds(third.ucc).cash == 1_000_000_00
        assert [row["nOrdNo"] for row in await caller.book()] == [number]
    async with trading(state=file, accounts=3):
        pass


async def test_a_clock_that_was_moved_on_goes_on_from_there(file: Path) -> None:
    async with trading(state=file) as caller:
        await caller.admin("POST", "clock", json={"advance": 7200})
        await caller.placed()
    async with trading(state=file, clock=Clock(START + 60)) as caller:
        await caller.placed()
        assert [row["ordDtTm"] for row in await caller.book()] == ["23-Nov-2026 12:00:00"] * 2


# --- files as a dead process leaves them ----------------------------------------------------------


def left_behind(file: Path, number: int) -> Path:
    """A copy as it would be if the process died now."""
    copy = file.with_name(f"copy{number}.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{file}{suffix}", f"{copy}{suffix}")
    return copy


async def test_at_any_moment_the_file_holds_what_anybody_has_been_told(file: Path) -> None:
    rng = random.Random(5)
    told: list[tuple[Path, float, dict[str, Any]]] = []
    async with trading(state=file, market_makers=True) as caller:
        for number in range(12):
            await do_some_business(caller, rng, 5)
            told.append((left_behind(file, number), caller.clock.now, await everything(caller)))
    for copy, now, before in told:
        async with trading(state=copy, market_makers=True, clock=Clock(now)) as caller:
            assert await everything(caller) == before


@pytest.mark.parametrize("seed", range(3))
async def test_a_market_that_keeps_hours_is_the_same_in_every_detail(file: Path, seed: int) -> None:
    """Over days with their openings, closes and settlements, and at whatever time it dies."""
    rng = random.Random(seed)
    kept = Rules(hours=Hours.EXCHANGE)
    copies: list[tuple[Path, float, Any]] = []
    async with trading(state=file, market_makers=True, rules=kept) as caller:
        for number in range(8):
            await do_some_business(caller, rng, 10)
            await caller.admin("GET", "ledger")
            copies.append((left_behind(file, number), caller.clock.now, details(caller)))
            caller.clock.now += rng.choice([60, 3600, 6 * 3600, 25 * 3600])
            if (await caller.get("/quick/user/orders")).status == 403:
                await caller.log_in_again()
    for copy, now, before in copies:
        clock = Clock(now)
        async with visiting(
            state=copy, market_makers=True, rules=kept, clock=clock, seed=7, limits=None
        ) as caller:
            after = details(caller)
            # Opened on a later day, it has new contracts besides.
            listed = after["listed"]
            listed["listings"] = listed["listings"][: len(before["listed"]["listings"])]
            assert after == before


def details(caller: Caller) -> dict[str, Any]:
    """All that the market is made of."""
    told: dict[str, Any] = msgspec.to_builtins(caller.exchange.market.snapshot())
    return told


async def test_what_only_time_has_brought_is_kept_too(file: Path) -> None:
    """Fills by market makers happen without a command, and long pauses skip their turns."""
    async with trading(state=file, market_makers=True) as caller:
        for price in ("39.37", "39.38", "39.39"):
            await caller.placed(pr=price, qt="5000", pc="MIS")
        for _ in range(400):
            caller.clock.now += 0.25
            ledger = (await caller.admin("GET", "ledger")).json()
            if all(entry["state"] == "complete" for entry in ledger):
                break
        assert ledger[-1]["state"] == "complete"
        copy = left_behind(file, 0)
        later = caller.clock.now + 3600
    async with trading(state=copy, market_makers=True, clock=Clock(later)) as caller:
        told = (await caller.admin("GET", "ledger")).json()
        assert [entry["fills"] for entry in told] == [entry["fills"] for entry in ledger]


# --- files that will not do -----------------------------------------------------------------------


async def test_a_file_serves_one_exchange_at_a_time(file: Path) -> None:
    async with trading(state=file):
        with pytest.raises(UsageError, match="database is locked"):
            await Exchange(state=file, seed=7).__aenter__()
    async with trading(state=file):
        pass


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seed": 8}, "seed=7, not 8"),
        ({"seed": 7, "market_makers": True}, "market_makers=False, not True"),
    ],
)
async def test_what_the_market_was_begun_with_must_stay(
    file: Path, options: dict[str, Any], text: str
) -> None:
    async with trading(state=file):
        pass
    with pytest.raises(UsageError, match=text):
        await exchange_with(state=file, **options).__aenter__()


def test_other_files_are_left_alone(file: Path) -> None:
    file.write_bytes(b"no database, but something that was worth keeping" * 100)
    content = file.read_bytes()
    with pytest.raises(UsageError, match="file is not a database"):
        asyncio.run(Exchange(state=file).__aenter__())
    assert file.read_bytes() == content

    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE mine (what TEXT)")
    database.close()
    content = file.read_bytes()
    with pytest.raises(UsageError, match="something else"):
        asyncio.run(Exchange(state=file).__aenter__())
    assert file.read_bytes() == content


def test_a_file_that_cannot_be_made_is_a_mistake(file: Path) -> None:
    with pytest.raises(UsageError, match="unable to open"):
        asyncio.run(Exchange(state=file.parent / "nowhere" / "state.db").__aenter__())


async def test_a_file_of_another_version_is_refused(file: Path) -> None:
    async with trading(state=file):
        pass
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UsageError, match="another version"):
        await Exchange(state=file, seed=7, market_makers=False).__aenter__()


def test_a_recording_cannot_be_kept(file: Path) -> None:
    with pytest.raises(UsageError, match="state with replay"):
        exchange_with(state=file, replay=file)


# --- a disk that is full --------------------------------------------------------------------------


async def test_an_order_that_cannot_be_kept_is_not_accepted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller gets a server error: whether it counts is open. It does once the disk has room."""
    from neo_async.exchange.persistence.store import Store

    async with trading(state=file) as caller:
        await caller.placed(ig="one")
        full = True
        append = Store.append

        def failing(self: Store, entries: Any) -> None:
            if full:
                raise sqlite3.OperationalError("database or disk is full")
            append(self, entries)

        monkeypatch.setattr(Store, "append", failing)
        assert (await caller.place(ig="two")).status == 500
        assert (await caller.get("/quick/user/orders")).status == 500
        full = False
        assert [row["GuiOrdId"] for row in await caller.book()] == ["two", "one"]
        now = caller.clock.now
    async with trading(state=file, clock=Clock(now)) as caller:
        assert [row["GuiOrdId"] for row in await caller.book()] == ["two", "one"]


# --- a process that is killed ---------------------------------------------------------------------


class Witness:
    """What clients have been told, and have not been told otherwise since."""

    def __init__(self) -> None:
        self.accepted: dict[str, str] = {}
        """Number to tag."""
        self.cancelled: set[str] = set()
        self.ledger: list[dict[str, Any]] = []
        """As last read."""

    def check(self, ledger: list[dict[str, Any]]) -> None:
        after = {entry["number"]: entry for entry in ledger}
        for number, tag in self.accepted.items():
            assert after[number]["client_tag"] == tag
        for number in self.cancelled:
            assert after[number]["state"] in ("cancelled", "complete", "rejected")
        # Nothing was accepted in between, only behind.
        numbers = [entry["number"] for entry in self.ledger]
        assert [entry["number"] for entry in ledger][: len(numbers)] == numbers
        for before in self.ledger:
            check_later(before, after[before["number"]])


FINAL = ("complete", "cancelled", "rejected")
FIXED = ("account", "client_tag", "symbol", "side", "product", "accepted_ns", "validity")


def check_later(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Whether an order may have come from one state into the other."""
    if before["state"] in FINAL:
        assert after == before | {"arrivals": after["arrivals"]}
        return
    assert {name: after[name] for name in FIXED} == {name: before[name] for name in FIXED}
    assert after["fills"][: len(before["fills"])] == before["fills"]
    for name in ("filled_quantity", "cancelled_quantity", "modifications", "updated_ns"):
        assert after[name] >= before[name]


class Trader:
    """Clients that trade with all their might until the exchange is gone."""

    def __init__(self, process: Process, http: aiohttp.ClientSession, witness: Witness) -> None:
        self.process = process
        self.http = http
        self.witness = witness
        self.pair: dict[str, str] = {}

    async def post(self, path: str, arguments: object) -> dict[str, Any]:
        return await self.process.post(self.http, self.pair, path, arguments)

    async def trade(self, name: str, rng: random.Random) -> None:
        mine: list[str] = []
        for count in range(1_000_000):
            price = f"{39.40 + rng.randrange(-6, 7) / 100:.2f}"
            draw = rng.random()
            if mine and draw < 0.3:
                number = rng.choice(mine)
                if draw < 0.15:
                    body = await self.post("/quick/order/cancel", {"on": number, "am": "NO"})
                    if body["stat"] == "Ok":
                        self.witness.cancelled.add(number)
                else:
                    change = {"no": number, "pr": price, "pt": "L", "qt": "4000"}
                    await self.post("/quick/order/vr/modify", change)
                continue
            tag = f"{name}_{count}"
            quantity = str(rng.randrange(1, 4_000))
            form = order(
                ig=tag, pr=price, qt=quantity, tt=rng.choice("BS"), pc=rng.choice(["MIS", "NRML"])
            )
            body = await self.post("/quick/order/rule/ms/place", form)
            assert body["stat"] == "Ok", body
            mine.append(body["nOrdNo"])
            self.witness.accepted[body["nOrdNo"]] = tag

    async def watch(self) -> None:
        while True:
            self.witness.ledger = await self.process.ledger(self.http)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _traders(process: Process, witness: Witness) -> AsyncIterator[Trader]:
    async with aiohttp.ClientSession() as http:
        trader = Trader(process, http, witness)
        trader.pair = await process.log_in(http)
        yield trader


@pytest.mark.real_time("kills a real process")
async def test_nothing_accepted_is_lost_when_the_process_is_killed(file: Path) -> None:
    rng = random.Random(11)
    witness = Witness()
    credentials: list[Credentials] = []
    for round_number in range(4):
        async with exchange_process(file) as process, _traders(process, witness) as trader:
            credentials.append(process.credentials)
            witness.check(await process.ledger(trader.http))
            work = [
                asyncio.create_task(
                    trader.trade(f"r{round_number}w{worker}", random.Random(rng.random()))
                )
                for worker in range(6)
            ]
            work.append(asyncio.create_task(trader.watch()))
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            process.kill()
            for task in work:
                with suppress(aiohttp.ClientError, ConnectionError):
                    await task
    async with exchange_process(file) as process, aiohttp.ClientSession() as http:
        ledger = await process.ledger(http)
        witness.check(ledger)
    assert len(witness.accepted) > 50
    assert any(entry["fills"] for entry in ledger)
    assert len(set(credentials)) == 1


# --- the market in place of its journal -----------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_orders_are_written_ahead_of_the_market_and_count_with_it(
    file: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the market takes the place of its journal, and at whatever moment it dies."""
    monkeypatch.setattr(memory, "_INTERVAL", 0.0)
    monkeypatch.setattr(memory, "_SHARE", 0)
    monkeypatch.setattr(memory, "_AT_ONCE", 3)
    monkeypatch.setattr(memory, "_PAUSE", 0.0)
    rng = random.Random(seed)
    copies: list[tuple[Path, float, Any]] = []
    async with trading(state=file, market_makers=True) as caller:
        for number in range(10):
            await do_some_business(caller, rng, 6)
            await covered_business(caller, rng)
            await caller.placed(ig=f"t{number}", qt="1")
            await caller.place(ig=f"t{rng.randrange(number + 1)}", qt="1")
            if number == 6:
                caller.exchange.market.end_day()
            for _ in range(rng.randrange(4)):
                caller.exchange.tick()
                await asyncio.sleep(0)
            await caller.admin("GET", "ledger")
            copies.append((left_behind(file, number), caller.clock.now, details(caller)))
    for copy, now, before in copies:
        async with visiting(state=copy, market_makers=True, clock=Clock(now)) as caller:
            assert details(caller) == before


async def covered_business(caller: Caller, rng: random.Random) -> None:
    bracket = {"pc": "BO", "sot": "Absolute", "slt": "Absolute", "slv": "0.30", "sov": "0.40"}
    trailing = bracket | {"tlt": "Y", "tsv": "0.05"}
    await caller.place(pt="L", pr=f"39.{rng.randrange(35, 45)}", qt="20", **trailing)
    price = {"segment": "nse_cm", "token": "19084", "price": f"39.{rng.randrange(20, 60)}"}
    await caller.admin("POST", "price", json=price)


async def test_a_large_ledger_does_not_hold_the_loop(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what has changed is written, and that in portions: counted, as times depend on the
    machine."""
    written: list[int] = []
    write_orders = Store._write_orders

    def counted(store: Store, orders: Any) -> None:
        orders = list(orders)
        written.append(len(orders))
        write_orders(store, orders)

    monkeypatch.setattr(Store, "_write_orders", counted)
    monkeypatch.setattr(memory, "_INTERVAL", 0.0)
    monkeypatch.setattr(memory, "_PAUSE", 0.0)
    async with trading(state=file) as caller:
        ucc = caller.credentials.ucc
        market = caller.exchange.market
        for _ in range(1_000):
            market.place(ucc, RESTING)
        while sum(written) < 1_000:
            caller.exchange.tick()
            await asyncio.sleep(0.001)
        assert max(written) <= 100
        written.clear()
        await caller.placed()
        while not sum(written):
            monkeypatch.setattr(memory, "_SHARE", 0)
            caller.exchange.tick()
            await asyncio.sleep(0.001)
        assert sum(written) == 1
    async with trading(state=file) as caller:
        assert len((await caller.admin("GET", "ledger")).json()) == 1_001


RESTING = NewOrder(
    segment=Segment.NSE_CM,
    symbol="ITBEES-EQ",
    side=Side.BUY,
    quantity=1,
    order_type=OrderType.LIMIT,
    product=Product.MIS,
    price=38_00,
)


# --- files that were damaged or made by others ----------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state file with some business in it."""
    path = tmp_path_factory.mktemp("kept") / "state.db"

    async def make() -> None:
        async with trading(state=path) as caller:
            await do_some_business(caller, random.Random(5), 10)

    asyncio.run(make())
    return path


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TRIGGER t AFTER INSERT ON journal BEGIN DELETE FROM orders; END",
        "CREATE TRIGGER t AFTER DELETE ON journal BEGIN DELETE FROM orders; END",
        "DROP TABLE candles; CREATE VIEW candles AS SELECT 1",
        "DROP TABLE funds; CREATE TABLE funds (content BLOB NOT NULL DEFAULT (randomblob(9)))",
        "CREATE TABLE mine (content BLOB)",
        "CREATE INDEX mine ON orders (version)",
        "INSERT INTO journal VALUES (999999, x'ff')",
        "INSERT INTO journal VALUES (999999, 'text')",
        "INSERT INTO candles VALUES ('evil', '1', 2, 3, 4, 5, 6, 7, 8)",
        "INSERT INTO candles VALUES ('nse_cm', '1', 2, 'a', 'b', 'c', 'd', 'e', 'f')",
        "UPDATE state SET entries = 'x'",
        "UPDATE state SET version = NULL",
        "UPDATE state SET content = x'c0'",
        "DELETE FROM state",
        "DELETE FROM orders",
        "UPDATE beginning SET content = 7",
        "DELETE FROM funds; INSERT INTO funds VALUES (x'80')",
    ],
)
async def test_a_state_file_of_others_runs_nothing_and_is_refused(
    file: Path, kept: Path, change: str
) -> None:
    shutil.copy(kept, file)
    database = sqlite3.connect(file, isolation_level=None)
    database.executescript(change)
    database.close()
    with pytest.raises(UsageError, match=r"state file .*state\.db"):
        async with visiting(state=file):
            pass


def test_a_state_file_with_bytes_changed_at_random_is_read_or_refused(
    file: Path, kept: Path
) -> None:
    async def open_and_close() -> None:
        with suppress(UsageError):
            async with visiting(state=file):
                pass

    chance = random.Random(11)
    content = kept.read_bytes()
    for _ in range(40):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 10, 200))):
            damaged[chance.randrange(100, len(damaged))] = chance.randrange(256)
        for name in (file, file.with_name("state.db-wal"), file.with_name("state.db-shm")):
            name.unlink(missing_ok=True)
        file.write_bytes(damaged)
        asyncio.run(open_and_close())


def test_a_state_file_is_its_owners_alone_and_no_file_of_others_is_opened(
    file: Path,
) -> None:
    def modes() -> set[int]:
        async def check() -> set[int]:
            async with trading(state=file):
                return {path.stat().st_mode & 0o777 for path in file.parent.iterdir()}

        return asyncio.run(check())

    def opening(path: Path) -> None:
        asyncio.run(Exchange(state=path, seed=7, market_makers=False).__aenter__())

    assert modes() == {0o600}
    file.chmod(0o644)
    assert modes() == {0o600}
    file.chmod(0o666)
    with pytest.raises(UsageError, match="can be written by every user"):
        opening(file)
    file.chmod(0o600)
    link = file.parent / "link"
    link.symlink_to(file)
    with pytest.raises(UsageError, match="symbolic link"):
        opening(link)
