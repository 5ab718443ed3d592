"""Faults on requests: drawn by the plan, done to the sockets, and what the ledger says of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random
from typing import Any

import aiohttp
import pytest

from neo_async.errors import UsageError
from neo_async.exchange import BrokerSettings, Exchange, Exponential, Faults, LogNormal, Uniform
from neo_async.exchange.faults.durations import Seconds, draw
from neo_async.exchange.faults.plan import NO_FAULTS, FaultPlan
from neo_async.exchange.faults.settings import ResponseFault, read_faults
from tests.exchange.callers import Caller, order, trading, visiting
from tests.simulation.virtual_time import now

BOOK = "/quick/user/orders"
PLACE = "/quick/order/rule/ms/place"


class Wire:
    """One connection to the exchange, and the bytes on it."""

    def __init__(
        self, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._caller = caller
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, body: str = "") -> None:
        lines = [
            f"{method} /neo{path} HTTP/1.1",
            "Host: localhost",
            *(f"{name}: {value}" for name, value in self._caller.pair.items()),
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
        ]
        self.writer.write("\r\n".join([*lines, "", body]).encode())

    def place(self, **changes: object) -> None:
        self.send("POST", PLACE, "jData=" + json.dumps(order(**changes)))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, bytes]:
        status, headers = await self.head()
        return status, await self.reader.readexactly(int(headers["content-length"]))

    async def rest(self) -> bytes | None:
        """What comes until the connection ends; None when it is reset."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return None

    async def close(self) -> None:
        self.writer.close()


async def wire(caller: Caller) -> Wire:
    host, port = caller.exchange.login_url.removeprefix("http://").split(":")
    return Wire(caller, *await asyncio.open_connection(host, int(port)))


async def ledger(caller: Caller) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = (await caller.admin("GET", "ledger")).json()
    return entries


# --- one at a time --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("lose_before", 0), ("lose_after", 1), ("hang_before", 0), ("hang_after", 1)],
)
async def test_an_answer_is_lost_before_or_after_the_order_is_accepted(
    name: str, accepted: int
) -> None:
    async with trading(clock=now, faults=Faults(**{name: 1.0}, hang_seconds=45)) as caller:
        began = asyncio.get_running_loop().time()
        lines = [await wire(caller) for _ in range(6)]
        for line in lines:
            line.place()
        ends = [await line.rest() for line in lines]
        assert set(ends) == {b"", None}  # by end of stream and by reset
        waited = asyncio.get_running_loop().time() - began
        assert waited == pytest.approx(45 if name.startswith("hang") else 0, abs=0.1)
        assert len(await ledger(caller)) == 6 * accepted
        assert caller.exchange.faults.injected == {name: 6}
        for line in lines:
            await line.close()


async def test_throttled_requests_have_no_effect() -> None:
    async with trading(faults=Faults(throttle=1)) as caller:
        refused = await caller.place()
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["stCode"] == 429
        assert await ledger(caller) == []


@pytest.mark.parametrize(("name", "accepted"), [("error_before", 0), ("error_after", 20)])
async def test_errors_come_in_every_form_before_or_after_acceptance(
    name: str, accepted: int
) -> None:
    async with trading(faults=Faults(**{name: 1.0})) as caller:
        answers = [await caller.place() for _ in range(20)]
        assert {answer.status for answer in answers} == {500, 502, 503, 504}
        kinds = Counter(
            "json" if answer.body[:1] == b"{" else "html" if answer.body else "empty"
            for answer in answers
        )
        assert kinds.keys() == {"json", "html", "empty"}
        for answer in answers:
            if answer.body[:1] == b"{":
                assert answer.json()["stCode"] == answer.status
        assert len(await ledger(caller)) == accepted


async def test_malformed_answers_follow_accepted_orders() -> None:
    async with trading(faults=Faults(malformed=1)) as caller:
        answers = [await caller.place() for _ in range(20)]
        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["Content-Type"].partition(";")[0] for answer in answers} == {
            "application/json",
            "text/html",
        }
        assert not any(is_acceptance(answer.body) for answer in answers)
        assert any(is_json(answer.body) for answer in answers)
        assert not all(is_json(answer.body) for answer in answers)
        assert len(await ledger(caller)) == 20


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def is_acceptance(body: bytes) -> bool:
    return is_json(body) and "nOrdNo" in (json.loads(body) or ())


async def test_truncated_answers_promise_more_than_comes() -> None:
    async with trading(faults=Faults(truncated=1)) as caller:
        for _ in range(5):
            line = await wire(caller)
            line.place()
            status, headers = await line.head()
            body = await line.rest()
            assert status == 200
            assert body is not None
            assert len(body) < int(headers["content-length"])
            await line.close()
        assert len(await ledger(caller)) == 5
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.place()


async def test_an_odd_value_spoils_one_number_of_the_rows_and_nothing_else() -> None:
    async with trading() as caller:
        for tag in ("one", "two"):
            await caller.placed(ig=tag)
        plain = (await caller.get(BOOK)).json()["data"]
        caller.exchange.faults.set(Faults(odd_value=1))
        seen = set()
        for _ in range(60):
            rows = (await caller.get(BOOK)).json()["data"]
            assert [row["nOrdNo"] for row in rows] == [row["nOrdNo"] for row in plain]
            changed = [
                (name, row[name])
                for row, before in zip(rows, plain, strict=True)
                for name in row
                if row[name] != before[name]
            ]
            assert len(changed) <= 1
            seen.update(name for name, _ in changed)
        assert len(seen) > 5
        assert is_acceptance((await caller.place()).body)  # there are no rows in it


async def test_dripping_answers_come_whole_and_keep_the_connection() -> None:
    async with trading(clock=now, faults=Faults(drip=1, drip_seconds=3)) as caller:
        line = await wire(caller)
        for count in (1, 2):
            began = asyncio.get_running_loop().time()
            line.place()
            status, headers = await line.head()
            size = int(headers["content-length"])
            arrived = [await line.reader.readexactly(1) for _ in range(size)]
            assert (status, is_acceptance(b"".join(arrived))) == (200, True)
            assert asyncio.get_running_loop().time() - began == pytest.approx(3, abs=0.1)
            assert len(await ledger(caller)) == count
        await line.close()


async def test_an_order_can_appear_long_after_its_sender_has_left() -> None:
    async with trading(clock=now, faults=Faults(delay_before=1, delay_seconds=20)) as caller:
        line = await wire(caller)
        line.place()
        await asyncio.sleep(10)
        await line.close()
        assert await ledger(caller) == []
        await asyncio.sleep(11)
        (entry,) = await ledger(caller)
        assert entry["accepted_ns"] / 1e9 == pytest.approx(now() - 1, abs=0.1)


async def test_an_answer_can_be_held_back() -> None:
    async with trading(clock=now, faults=Faults(delay_after=1, delay_seconds=4)) as caller:
        line = await wire(caller)
        line.place()
        await asyncio.sleep(0.5)
        assert len(await ledger(caller)) == 1
        began = asyncio.get_running_loop().time()
        status, body = await line.answer()
        assert (status, is_acceptance(body)) == (200, True)
        assert asyncio.get_running_loop().time() - began == pytest.approx(3.5, abs=0.1)
        await line.close()


async def test_idle_connections_are_closed_but_not_while_in_use() -> None:
    async with trading(clock=now, faults=Faults(close_idle=1, idle_seconds=0.5)) as caller:
        line = await wire(caller)
        for _ in range(3):
            line.place()
            assert (await line.answer())[0] == 200
            await asyncio.sleep(0.4)
        assert caller.exchange.faults.injected == {}
        assert await line.rest() == b""
        assert caller.exchange.faults.injected == {"close_idle": 1}
        await line.close()


async def test_a_close_can_cross_the_next_request() -> None:
    async with trading(faults=Faults(close_crossing=1)) as caller:
        line = await wire(caller)
        line.place()
        assert (await line.answer())[0] == 200
        line.place()
        assert await line.rest() in (b"", None)
        assert len(await ledger(caller)) == 1
        assert caller.exchange.faults.injected == {"close_crossing": 1}
        await line.close()


async def test_closing_does_not_wait_for_those_who_hang() -> None:
    async with trading(clock=now, faults=Faults(hang_after=1)) as caller:
        line = await wire(caller)
        line.place()
        while not await ledger(caller):
            pass
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 0.5
    assert await line.rest() in (b"", None)
    await line.close()


@pytest.mark.parametrize("harm", list(ResponseFault))
async def test_senders_who_have_left_upset_nobody(
    harm: ResponseFault, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults(**{harm.value: 1.0}, delay_before=1, hang_seconds=5)
    async with trading(clock=now, faults=faults) as caller:
        lines = [await wire(caller) for _ in range(4)]
        for line in lines:
            line.place()
        await asyncio.sleep(0.01)
        for line in lines:
            await line.close()
        await asyncio.sleep(10)
        assert caller.exchange.faults.injected[harm] == 4
    assert caplog.records == []


# --- who is hit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "statuses"),
    [
        (("orders",), (200, 429, 200)),
        (("reads",), (200, 200, 429)),
        (("logins",), (429, 200, 200)),
        (("orders", "reads"), (200, 429, 429)),
        ((), (200, 200, 200)),
    ],
)
async def test_only_the_calls_that_are_named_are_hit(
    calls: Any, statuses: tuple[int, int, int]
) -> None:
    async with trading() as caller:
        caller.exchange.faults.set(Faults(throttle=1, calls=calls))
        caller.clock.now += 30
        login = await caller.first_step()
        place = await caller.place()
        book = await caller.get(BOOK)
        assert (login.status, place.status, book.status) == statuses


async def test_faults_are_set_shown_and_ended_over_the_control_surface() -> None:
    async with trading() as caller:
        assert (await caller.admin("GET", "faults")).json() == {"settings": {}, "injected": {}}
        wanted = {"throttle": 1.0, "hang_seconds": {"kind": "uniform", "low": 1.0, "high": 2.0}}
        shown = await caller.admin("POST", "faults", json=wanted)
        assert shown.json() == {"settings": wanted, "injected": {}}
        assert (await caller.place()).status == 429
        assert (await caller.get(BOOK)).status == 429
        assert (await caller.admin("GET", "faults")).json() == {
            "settings": wanted,
            "injected": {"throttle": 2},
        }
        await caller.admin("POST", "reset")
        assert (await caller.admin("GET", "faults")).json() == {"settings": wanted, "injected": {}}
        assert (await caller.admin("POST", "faults", json={})).json()["settings"] == {}
        assert (await caller.place()).status == 200


@pytest.mark.parametrize(("old", "code"), [(False, 32), (True, 5204)])
async def test_repeated_tags_count_as_arrivals_of_the_first_order(old: bool, code: int) -> None:
    faults = Faults(lose_after=1, calls=("orders",))
    async with trading(faults=faults, broker=BrokerSettings(old_duplicate_code=old)) as caller:
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectionError):
                await caller.place(ig="one")
        caller.exchange.faults.set(Faults())
        assert (await caller.place(ig="one")).json()["stCode"] == code
        (entry,) = await ledger(caller)
        assert (entry["client_tag"], entry["arrivals"]) == ("one", 3)
        requests = (await caller.admin("GET", "requests")).json()
        assert [request["path"] for request in requests].count(f"/neo{PLACE}") == 3


# --- the plan -------------------------------------------------------------------------------------

ALL = Faults(
    **{harm.value: 0.05 for harm in ResponseFault},
    delay_before=0.3,
    delay_after=0.2,
    close_idle=0.1,
    close_crossing=0.1,
)


def test_the_same_seed_decides_the_same_whatever_else_is_asked_for() -> None:
    one, other = FaultPlan(7, ALL), FaultPlan(7, ALL)
    decisions = []
    for _ in range(300):
        other.for_request("reads")
        decisions.append(one.for_request("orders"))
        assert decisions[-1] == other.for_request("orders")
    assert decisions != [FaultPlan(8, ALL).for_request("orders") for _ in range(300)]
    one.restart()
    assert [one.for_request("orders") for _ in range(300)] == decisions


def test_a_seed_of_its_own_wins_over_that_of_the_exchange() -> None:
    seeded = Faults(lose_before=0.5, seed=3)
    plans = [FaultPlan(seed, seeded) for seed in (1, 2)]
    first, second = ([plan.for_request("orders") for _ in range(100)] for plan in plans)
    assert first == second


def test_faults_come_as_often_as_their_probabilities_say() -> None:
    plan = FaultPlan(1, ALL)
    decisions = [plan.for_request("orders") for _ in range(10_000)]
    for harm in ResponseFault:
        assert plan.counts[harm] == pytest.approx(500, abs=100)
    assert plan.counts["delay_before"] == pytest.approx(3000, abs=200)
    assert sum(each.fault is None for each in decisions) == pytest.approx(
        10_000 - 500 * len(ResponseFault), abs=200
    )
    assert sum(each.connection_fault is not None for each in decisions) == pytest.approx(
        2000, abs=200
    )


def test_probabilities_that_sum_to_one_leave_nothing_unharmed() -> None:
    plan = FaultPlan(1, Faults(**{harm.value: 1 / len(ResponseFault) for harm in ResponseFault}))
    assert all(plan.for_request("orders").fault for _ in range(1000))


def test_calls_that_are_not_named_draw_nothing() -> None:
    plan = FaultPlan(1, Faults(lose_before=1, calls=("orders",)))
    assert plan.for_request("logins") is NO_FAULTS
    assert not plan.counts


@pytest.mark.parametrize(
    ("seconds", "low", "median", "high"),
    [
        (2.0, 2.0, 2.0, 2.0),
        (Uniform(low=1, high=3), 1.0, 2.0, 3.0),
        (Exponential(mean=2), 0.0, 1.386, 40.0),
        (Exponential(mean=0), 0.0, 0.0, 0.0),
        (LogNormal(median=2, sigma=0.5), 0.0, 2.0, 40.0),
    ],
)
def test_seconds_follow_their_distribution(
    seconds: Seconds, low: float, median: float, high: float
) -> None:
    random = Random(1)
    drawn = sorted(draw(seconds, random) for _ in range(2001))
    assert low <= drawn[0] <= drawn[-1] <= high
    assert drawn[1000] == pytest.approx(median, rel=0.1)


# --- settings that cannot be ----------------------------------------------------------------------

WRONG = [
    ({"lose_befor": 0.1}, "'lose_befor' is none of them; there are seed, calls, lose_before"),
    ({"throttle": 1.5}, "throttle=1.5: must be a probability from 0 to 1"),
    ({"drip": -0.1}, "drip=-0.1: must be a probability"),
    ({"lose_after": 0.6, "drip": 0.5}, "lose_after + drip = 1.1: only one of them"),
    ({"feed_lose": 0.6, "feed_late": 0.5}, "feed_lose + feed_late = 1.1"),
    ({"close_idle": 0.6, "close_crossing": 0.5}, "close_idle + close_crossing = 1.1"),
    ({"hang_seconds": -1}, "hang_seconds=-1.0: must be seconds, 0 or more"),
    ({"delay_seconds": {"kind": "uniform", "low": 3, "high": 2}}, "low must not be above high"),
    ({"delay_seconds": {"kind": "normal"}}, "normal"),
    ({"delay_seconds": {"kind": "uniform", "low": 1, "height": 2}}, "height"),
    ({"calls": ["order"]}, "order"),
    ({"throttle": "often"}, "throttle"),
    ([], "faults: Expected `object`"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG)
async def test_settings_that_cannot_be_are_refused_by_name(wrong: Any, text: str) -> None:
    async with visiting() as caller:
        refused = await caller.admin("POST", "faults", json=wrong)
        assert refused.status == 400
        assert text in refused.json()["error"]
        assert (await caller.admin("GET", "faults")).json()["settings"] == {}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"throttle": 2}, "throttle=2: must be a probability"),
        ({"throttle": True}, "throttle=True"),
        ({"throttle": float("nan")}, "throttle=nan"),
        ({"hang_seconds": float("inf")}, "hang_seconds=inf"),
        ({"calls": ("order",)}, "calls='order': must be among orders, reads, logins"),
    ],
)
def test_python_refuses_them_too(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Faults(**wrong)


def test_json_and_python_say_the_same() -> None:
    assert read_faults('{"drip": 0.5, "drip_seconds": {"kind": "lognormal", "median": 2}}') == (
        Faults(drip=0.5, drip_seconds=LogNormal(median=2))
    )


async def test_faults_are_no_dict() -> None:
    wrong: Any = {"lose_after": 0.1}
    told = r"faults={'lose_after': 0.1}: must be such as Faults\(lose_after=0.1\)"
    with pytest.raises(UsageError, match=told):
        Exchange(faults=wrong)
    async with Exchange() as exchange:
        with pytest.raises(UsageError, match=told):
            exchange.faults.set(wrong)
