"""Credits come in order, none is lost, and with a store each comes once: whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.banking import Credit
from neo_async.errors import (
    BankRejected,
    InvalidField,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionEnded,
    StoreFailed,
    TransportError,
)
from tests.banking.small_bank import SmallBank, client_of, serving
from tests.virtual_time import VirtualTimeLoop, in_virtual_time

FAULTS = ("before", "after", "500 before", "500 after", "401", "429", "html", "twice", "")


def in_time(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(test)


# --- whatever happens ---------------------------------------------------------------------------


class Life(NamedTuple):
    """One process of a consumer."""

    takes: int
    """Credits (or batches) until it dies."""
    books_first: bool
    """Whether it dies after having booked what is in its hands."""
    by_batch: bool


class Consumer:
    """Books credits, and dies as it is told. What it may have had before it looks up first."""

    def __init__(self, bank: SmallBank, store: Path | None) -> None:
        self.bank = bank
        self.store = store
        self.books: list[str] = []
        self.taken: list[Credit] = []
        self.in_hand_at_death: list[set[str]] = []

    async def live(self, life: Life | None) -> None:
        """To the end of all credits, where no death is given."""
        async with client_of(self.bank, store=self.store) as client:
            stream = client.transactions()
            if life is None:
                await self._take_all(stream, by_batch=False)
            elif life.by_batch:
                await self._take_all(stream.batches(), by_batch=True, life=life)
            else:
                await self._take_all(stream, by_batch=False, life=life)

    async def _take_all(self, source: Any, *, by_batch: bool, life: Life | None = None) -> None:
        takes = 0
        while True:
            try:
                taken = await anext(source)
            except StopAsyncIteration:
                return
            except (TransportError, ServerError, RateLimited, SessionEnded):
                if by_batch:
                    return  # a generator has ended with that
                continue
            held = list(taken) if by_batch else [taken]
            self.taken += held
            takes += 1
            dies = life is not None and takes > life.takes
            if dies and life is not None and not life.books_first:
                self.in_hand_at_death.append({credit.reference for credit in held})
                return
            for credit in held:
                self.book(credit)
            if dies:
                self.in_hand_at_death.append({credit.reference for credit in held})
                return

    def book(self, credit: Credit) -> None:
        if not (credit.may_be_repeated and credit.reference in self.books):
            self.books.append(credit.reference)


lives = st.lists(
    st.builds(Life, takes=st.integers(0, 150), books_first=st.booleans(), by_batch=st.booleans()),
    max_size=4,
)
faults = st.lists(st.sampled_from(FAULTS), max_size=30)
credit_counts = st.integers(0, 5) | st.integers(95, 105) | st.integers(195, 320)


@settings(max_examples=60, deadline=None)
@given(credit_counts, faults, lives)
def test_with_a_store_every_credit_is_booked_exactly_once(count, faults, lives):
    async def run() -> None:
        bank = SmallBank(faults)
        bank.add_credits(count)
        with tempfile.TemporaryDirectory() as folder:
            consumer = Consumer(bank, Path(folder) / "credits.db")
            async with serving(bank):
                for life in [*lives, None]:
                    await consumer.live(life)
        assert consumer.books == bank.references
        fresh = [credit.reference for credit in consumer.taken if not credit.may_be_repeated]
        assert fresh == bank.references
        again = [credit.reference for credit in consumer.taken if credit.may_be_repeated]
        for reference in again:
            assert any(reference in hands for hands in consumer.in_hand_at_death)
        assert bank.acknowledged == count

    in_time(run())


@settings(max_examples=60, deadline=None)
@given(credit_counts, faults, lives)
def test_without_a_store_every_credit_comes_at_least_once_and_in_order(count, faults, lives):
    async def run() -> None:
        bank = SmallBank(faults)
        bank.add_credits(count)
        consumer = Consumer(bank, None)
        async with serving(bank):
            for life in [*lives, None]:
                await consumer.live(life)
        first_times = list(dict.fromkeys(credit.reference for credit in consumer.taken))
        assert first_times == bank.references
        assert bank.acknowledged == count

    in_time(run())


_KILLED = """
import asyncio, os, signal, sys
from tests.banking.small_bank import CLIENT, CLIENT_ID, CLIENT_SECRET, PHYSICAL
from neo_async.banking import BankingProfile, VirtualAccounts

async def main(url, store, deadly):
    profile = BankingProfile.of(
        {"server": {"base_url": url}, "plan": {"requests_per_second": 1000}}
    )
    async with VirtualAccounts(
        CLIENT_ID, CLIENT_SECRET, profile=profile, client_name=CLIENT, physical_account=PHYSICAL,
        store=store,
    ) as bank:
        async for credit in bank.transactions():
            print(credit.reference, credit.may_be_repeated, flush=True)
            if credit.sequence == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_a_killed_process_costs_no_credit(tmp_path):
    bank = SmallBank()
    bank.add_credits(250)
    lines: list[str] = []

    def consume(deadly: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, bank.url, str(tmp_path / "credits.db"), str(deadly)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        lines.extend(done.stdout.splitlines())
        assert "Traceback" not in done.stderr
        return done.returncode

    async with serving(bank):
        codes = [await asyncio.to_thread(consume, deadly) for deadly in (130, 200, 0)]
    assert codes == [-9, -9, 0]
    fresh = [line.split()[0] for line in lines if line.endswith("False")]
    assert fresh == bank.references
    again = [line.split()[0] for line in lines if line.endswith("True")]
    assert again == ["REF00000130", "REF00000200"]


# --- one thing at a time ------------------------------------------------------------------------


@in_virtual_time
async def test_a_credit_says_all_that_the_bank_does():
    bank = SmallBank()
    bank.add_credits(1)
    async with serving(bank), client_of(bank) as client:
        (credit,) = [credit async for credit in client.transactions()]
    assert credit.amount == Decimal("1.01")
    assert (credit.sequence, credit.reference, credit.account) == (
        1,
        "REF00000001",
        "ACME00000001",
    )
    assert credit.credited_at is not None
    assert credit.credited_at.isoformat() == "2026-11-19T10:15:02+05:30"
    assert (credit.mode, credit.utr, credit.remitter_ifsc) == ("NEFT", "UTR1", "ICIC0000004")


@in_virtual_time
async def test_the_acknowledgement_waits_until_the_consumer_comes_back():
    bank = SmallBank()
    bank.add_credits(150)
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        for _ in range(100):
            await anext(stream)
        assert "transactions/ack" not in bank.paths()
        await anext(stream)
        assert bank.paths() == ["transactions/fetch", "transactions/ack", "transactions/fetch"]
        assert bank.bodies("ack")[0]["count"] == 100


@in_virtual_time
async def test_a_batch_can_be_acknowledged_early():
    bank = SmallBank()
    bank.add_credits(3)
    async with serving(bank), client_of(bank) as client:
        batches = client.transactions().batches()
        batch = await anext(batches)
        assert (len(batch), batch.is_acknowledged) == (3, False)
        await batch.ack()
        await batch.ack()
        assert bank.acknowledged == 3
        assert batch.is_acknowledged
        assert [batch async for batch in batches] == []
        assert bank.paths().count("transactions/ack") == 1


@in_virtual_time
async def test_what_is_left_in_hand_comes_again_and_says_so(tmp_path):
    bank = SmallBank()
    bank.add_credits(5)
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        async for credit in client.transactions():
            if credit.sequence == 3:
                break
        rest = [(credit.sequence, credit.may_be_repeated) async for credit in client.transactions()]
    assert rest == [(3, True), (4, False), (5, False)]


@in_virtual_time
async def test_what_is_said_to_be_done_does_not_come_again(tmp_path):
    bank = SmallBank()
    bank.add_credits(5)
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        stream = client.transactions()
        async for credit in stream:
            if credit.sequence == 3:
                await stream.done()
                break
        assert bank.acknowledged == 0
        rest = client.transactions()
        numbers = []
        async for credit in rest:
            numbers.append(credit.sequence)
            if credit.sequence == 5:
                await rest.done()
                break
        assert numbers == [4, 5]
        assert bank.acknowledged == 5


@in_virtual_time
async def test_without_a_store_a_batch_that_is_sent_again_says_so():
    bank = SmallBank()
    bank.add_credits(2)
    async with serving(bank), client_of(bank) as client:
        await anext(client.transactions())
        again = [credit.may_be_repeated async for credit in client.transactions()]
    assert again == [True, True]


@in_virtual_time
async def test_a_lost_acknowledgement_is_sent_again_under_its_key():
    bank = SmallBank(["", "before", "after", ""])
    bank.add_credits(1)
    async with serving(bank), client_of(bank) as client:
        assert len([credit async for credit in client.transactions()]) == 1
    acks = [
        (headers["idempotency-key"], headers["x-request-id"], body["requestId"])
        for path, headers, body in bank.requests
        if path.endswith("ack")
    ]
    assert len(acks) == 3
    assert len(set(acks)) == 1
    assert len(set(acks[0])) == 1


@in_virtual_time
async def test_an_iteration_goes_on_where_a_failure_ended_it():
    bank = SmallBank(["", *["before"] * 4])
    bank.add_credits(101)
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        taken = [await anext(stream) for _ in range(100)]
        with pytest.raises(TransportError):
            await anext(stream)
        taken += [credit async for credit in stream]
    assert [credit.reference for credit in taken] == bank.references


@in_virtual_time
async def test_polling_waits_for_more_and_outlives_failures():
    bank = SmallBank(["", *["html"] * 9])
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions(poll=10.0)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(5)
        bank.add_credits(1)
        assert (await waiting).sequence == 1


@in_virtual_time
async def test_polling_ends_with_a_refusal():
    bank = SmallBank()
    refusal = {"status": "FAILURE", "errorCode": "VA0403", "message": "not yours"}
    bank.instead["transactions/fetch"] = (403, refusal)
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(BankRejected, match="not yours") as caught:
            await anext(client.transactions(poll=10.0))
    assert caught.value.refusal == "forbidden"


@in_virtual_time
async def test_a_batch_with_something_unreadable_is_neither_handed_over_nor_acknowledged():
    bank = SmallBank()
    bank.add_credits(2)
    bank.credits[1]["amount"] = "12.345"
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(ProtocolError, match=r"credit REF00000002: 12\.345 is no amount"):
            await anext(client.transactions())
    assert "transactions/ack" not in bank.paths()


@in_virtual_time
async def test_a_batch_that_lost_a_credit_on_the_way_is_not_acknowledged():
    bank = SmallBank()
    bank.add_credits(2)
    batch = bank._batch
    bank._batch = lambda *where: {**batch(*where), "count": 3}  # type: ignore[method-assign]
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(ProtocolError, match="3 credits are promised, 2 are there"):
            await anext(client.transactions())


@in_virtual_time
async def test_a_bank_that_never_goes_on_is_not_asked_for_ever():
    bank = SmallBank()
    bank.add_credits(1)
    bank.instead["transactions/ack"] = (200, {"status": "SUCCESS"})
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        await anext(stream)
        with pytest.raises(ProtocolError, match="again and again"):
            await anext(stream)


@in_virtual_time
async def test_a_batch_that_the_bank_has_forgotten_does_not_hold_up_the_rest():
    bank = SmallBank()
    bank.add_credits(101)
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        for _ in range(100):
            await anext(stream)
        bank.batches.clear()
        bank.acknowledged, bank.outstanding = 100, None
        assert (await anext(stream)).sequence == 101


@pytest.mark.parametrize("poll", [0, -1.0])
async def test_a_pause_is_above_zero(poll):
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    async with client_of(bank) as client:
        with pytest.raises(InvalidField, match="poll"):
            client.transactions(poll=poll)


# --- the store ----------------------------------------------------------------------------------


async def test_a_store_has_one_user(tmp_path):
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    async with client_of(bank, store=tmp_path / "c.db"):
        with pytest.raises(StoreFailed, match="somebody else has it open"):
            async with client_of(bank, store=tmp_path / "c.db"):
                pass
    async with client_of(bank, store=tmp_path / "c.db"):
        pass


async def test_a_file_that_is_no_store_is_refused(tmp_path):
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    (tmp_path / "c.db").write_text("something else entirely" * 100)
    with pytest.raises(StoreFailed, match=r"c\.db cannot be opened"):
        async with client_of(bank, store=tmp_path / "c.db"):
            pass
    with pytest.raises(StoreFailed, match="unable to open"):
        async with client_of(bank, store=tmp_path / "nowhere" / "c.db"):
            pass


async def test_a_store_of_another_version_is_refused(tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "c.db") as file:
        file.execute("PRAGMA user_version = 7")
    file.close()
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    with pytest.raises(StoreFailed, match="version 7"):
        async with client_of(bank, store=tmp_path / "c.db"):
            pass


@in_virtual_time
async def test_what_cannot_be_marked_is_not_handed_over(tmp_path):
    bank = SmallBank()
    bank.add_credits(2)
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        stream = client.transactions()
        await anext(stream)
        assert client._store is not None
        file = client._store._file
        assert file is not None
        file.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreFailed, match="readonly"):
            await anext(stream)
        file.execute("PRAGMA query_only = 0")
        assert (await anext(stream)).sequence == 2


@given(st.lists(st.integers(0, 60), max_size=20))
@settings(max_examples=10, deadline=None)
def test_giving_up_at_any_moment_loses_nothing(turns):
    """Cancelled after so many turns of the loop, wherever that is."""

    async def run() -> None:
        bank = SmallBank()
        bank.add_credits(230)
        taken: list[Credit] = []
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "credits.db"
            async with serving(bank), client_of(bank, store=store) as client:
                stream = client.transactions()
                for count in turns:
                    for _ in range(20):
                        task = asyncio.ensure_future(anext(stream))
                        for _ in range(count):
                            await asyncio.sleep(0)
                        task.cancel()
                        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                            taken.append(await task)
                taken += [credit async for credit in stream]
        assert [credit.reference for credit in taken] == bank.references

    in_time(run())
