"""Credits come in order, none is lost, and with a store each comes once: whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
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
    UnreadableCredit,
    UsageError,
)
from tests.banking.small_bank import SmallBank, client_of, serving
from tests.simulation.virtual_time import VirtualTimeLoop

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


@pytest.mark.real_time("kills real processes")
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


async def test_what_is_left_in_hand_comes_again_and_says_so(tmp_path):
    bank = SmallBank()
    bank.add_credits(5)
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        async for credit in client.transactions():
            if credit.sequence == 3:
                break
        rest = [(credit.sequence, credit.may_be_repeated) async for credit in client.transactions()]
    assert rest == [(3, True), (4, False), (5, False)]


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


async def test_without_a_store_a_batch_that_is_sent_again_says_so():
    bank = SmallBank()
    bank.add_credits(2)
    async with serving(bank), client_of(bank) as client:
        await anext(client.transactions())
        again = [credit.may_be_repeated async for credit in client.transactions()]
    assert again == [True, True]


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


async def test_polling_waits_for_more_and_outlives_failures():
    bank = SmallBank(["", *["html"] * 9])
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions(poll=10.0)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(5)
        bank.add_credits(1)
        assert (await waiting).sequence == 1


async def test_polling_ends_with_a_refusal():
    bank = SmallBank()
    refusal = {"status": "FAILURE", "errorCode": "VA0403", "message": "not yours"}
    bank.instead["transactions/fetch"] = (403, refusal)
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(BankRejected, match="not yours") as caught:
            await anext(client.transactions(poll=10.0))
    assert caught.value.refusal == "forbidden"


# --- entries that are no credits ----------------------------------------------------------------

NO_CREDITS = ["12.345", "-1500.00", "0", 0, "0.00", "N/A", "1,50", "1.500,00", "", None, True, [],
              {"value": "5.00"}]  # fmt: skip


@pytest.mark.parametrize("amount", NO_CREDITS)
async def test_an_entry_that_is_no_credit_stands_in_the_way_until_it_is_stepped_over(amount):
    bank = SmallBank()
    bank.add_credits(102)
    bank.credits[1]["amount"] = amount
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        assert (await anext(stream)).sequence == 1
        for _ in range(3):  # coming back is no word that it was seen
            with pytest.raises(UnreadableCredit, match="credit REF00000002: ") as caught:
                await anext(stream)
        assert caught.value.reference == "REF00000002"
        assert msgspec.json.decode(caught.value.entry)["amount"] == amount
        assert "transactions/ack" not in bank.paths()
        stream.skip(caught.value)
        rest = [credit.sequence async for credit in stream]
    assert rest == list(range(3, 103))
    assert bank.acknowledged == 102
    assert bank.bodies("ack")[0]["count"] == 100


@pytest.mark.parametrize("lacking", [{"transactionReference": ""}, {"transactionReference": None}])
async def test_an_entry_without_a_reference_is_stepped_over_in_the_same_way(lacking):
    bank = SmallBank()
    bank.add_credits(1)
    bank.credits[0] |= lacking
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        with pytest.raises(UnreadableCredit, match="a credit without a reference") as caught:
            await anext(stream)
        assert bank.acknowledged == 0
        stream.skip(caught.value)
        assert [credit async for credit in stream] == []
    assert bank.acknowledged == 1


async def test_a_whole_batch_waits_for_what_cannot_be_read_in_it(tmp_path):
    bank = SmallBank()
    bank.add_credits(4)
    bank.credits[1]["amount"] = bank.credits[2]["amount"] = "-5.00"
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        stream = client.transactions()
        for _ in range(3):
            with pytest.raises(UnreadableCredit, match="REF00000002"):
                await anext(stream.batches())
        for reference in ("REF00000002", "REF00000003"):
            with pytest.raises(UnreadableCredit, match=reference) as caught:
                await anext(stream.batches())
            stream.skip(caught.value)
        assert bank.acknowledged == 0
        sequences = [[credit.sequence for credit in batch] async for batch in stream.batches()]
    assert sequences == [[1, 4]]
    assert bank.acknowledged == 4


async def test_only_what_stands_in_the_way_can_be_stepped_over():
    bank = SmallBank()
    bank.add_credits(2)
    bank.credits[0]["amount"] = bank.credits[1]["amount"] = "0"
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        with pytest.raises(UnreadableCredit) as first:
            await anext(stream)
        stream.skip(first.value)
        with pytest.raises(UsageError, match="raised last"):
            stream.skip(first.value)
        with pytest.raises(UnreadableCredit, match="REF00000002"):
            await anext(stream)


async def test_odd_values_beside_the_money_are_unknown_and_the_credit_is_there(caplog):
    bank = SmallBank()
    bank.add_credits(2)
    bank.credits[0] |= {
        "sequence": "first",
        "amount": "1,23,456.50",
        "creditedAt": "yesterday",
        "remitterName": {"first": "RAVI"},
        "utr": 12345,
        "narration": True,
        "mode": None,
    }
    async with serving(bank), client_of(bank) as client:
        odd, _ = [credit async for credit in client.transactions()]
    assert odd.amount == Decimal("123456.50")
    assert (odd.sequence, odd.credited_at, odd.utr, odd.mode) == (None, None, "12345", "")
    assert (odd.remitter_name, odd.narration) == ('{"first":"RAVI"}', "true")
    assert "time of credit 'REF00000001' is taken as unknown: 'yesterday'" in caplog.text


async def test_amounts_are_exact_whatever_decimal_context_the_program_has():
    bank = SmallBank()
    bank.add_credits(1)
    bank.credits[0]["amount"] = 123456789
    with decimal.localcontext(decimal.Context(prec=6, traps=[decimal.Inexact])):
        async with serving(bank), client_of(bank, format={"amount": "paise"}) as client:
            (credit,) = [credit async for credit in client.transactions()]
            await client.refund("ACME", "REF00000001", amount="12345.67")
    assert str(credit.amount) == "1234567.89"
    assert bank.bodies("refunds/create")[0]["amount"] == 1234567


# --- credits that share a reference ---------------------------------------------------------------


def share_a_reference(bank: SmallBank, **fields: Any) -> None:
    for credit in bank.credits:
        credit |= {"transactionReference": "0", **fields}


@pytest.mark.parametrize("has_store", [True, False])
@pytest.mark.parametrize("by_batch", [True, False])
async def test_credits_that_share_a_reference_are_each_handed_over_once(
    has_store, by_batch, tmp_path
):
    bank = SmallBank()
    bank.add_credits(800)
    share_a_reference(bank)
    store = tmp_path / "c.db" if has_store else None
    async with serving(bank), client_of(bank, store=store) as client:
        stream = client.transactions()
        if by_batch:
            taken = [credit async for batch in stream.batches() for credit in batch]
        else:
            taken = [credit async for credit in stream]
    assert [credit.sequence for credit in taken] == list(range(1, 801))
    assert not any(credit.may_be_repeated for credit in taken)
    assert bank.acknowledged == 800


async def test_without_a_sequence_credits_of_one_reference_are_told_apart_by_the_rest(tmp_path):
    bank = SmallBank()
    bank.add_credits(150)
    share_a_reference(bank, sequence=None)
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        taken = [credit async for credit in client.transactions()]
    assert [credit.utr for credit in taken] == [f"UTR{number}" for number in range(1, 151)]
    # Those of the first batch are new for certain; the others' reference has been seen before.
    assert [credit.may_be_repeated for credit in taken] == [False] * 100 + [True] * 50


@pytest.mark.parametrize("sequence", [1, None])
async def test_an_entry_that_comes_twice_in_a_batch_is_one_only_where_the_sequence_says_so(
    sequence, tmp_path
):
    bank = SmallBank()
    bank.add_credits(2)
    bank.credits[0]["sequence"] = sequence
    bank.credits[1] = dict(bank.credits[0])
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        taken = [credit.may_be_repeated async for credit in client.transactions()]
    assert taken == ([False] if sequence else [False, True])
    assert bank.acknowledged == 2


async def test_with_a_store_a_restart_repeats_nothing_that_shares_a_reference(tmp_path):
    bank = SmallBank()
    bank.add_credits(5)
    share_a_reference(bank)
    taken = []
    async with serving(bank):
        for deadly in (3, 0):
            async with client_of(bank, store=tmp_path / "c.db") as client:
                async for credit in client.transactions():
                    taken.append((credit.sequence, credit.may_be_repeated))
                    if credit.sequence == deadly:
                        break
    assert taken == [(1, False), (2, False), (3, False), (3, True), (4, False), (5, False)]


async def test_a_credit_whose_words_have_changed_comes_again_and_says_so(tmp_path):
    bank = SmallBank()
    bank.add_credits(1)
    async with serving(bank):
        async with client_of(bank, store=tmp_path / "c.db") as client:
            stream = client.transactions()
            await anext(stream)
            await stream._source.store.finish([stream._current])  # type: ignore[union-attr, list-item]
        bank.credits[0]["narration"] = "INV 77, corrected"
        async with client_of(bank, store=tmp_path / "c.db") as client:
            (again,) = [credit async for credit in client.transactions()]
    assert again.may_be_repeated


async def test_a_batch_that_lost_a_credit_on_the_way_is_not_acknowledged():
    bank = SmallBank()
    bank.add_credits(2)
    batch = bank._batch
    bank._batch = lambda *where: {**batch(*where), "count": 3}  # type: ignore[method-assign]
    async with serving(bank), client_of(bank) as client:
        with pytest.raises(ProtocolError, match="should have 3 credits, but has 2"):
            await anext(client.transactions())


async def test_a_bank_that_never_goes_on_is_not_asked_for_ever():
    bank = SmallBank()
    bank.add_credits(1)
    bank.instead["transactions/ack"] = (200, {"status": "SUCCESS"})
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        await anext(stream)
        with pytest.raises(ProtocolError, match="the bank keeps sending batch"):
            await anext(stream)


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
        with pytest.raises(StoreFailed, match="another process has it open"):
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


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_nobody_but_its_owner_can_read_a_store_at_any_time(tmp_path):
    bank = SmallBank()
    bank.add_credits(3)
    path = tmp_path / "c.db"
    path.touch(0o644)
    old = os.umask(0o022)
    try:
        async with serving(bank), client_of(bank, store=path) as client:
            await anext(client.transactions())
            assert {permissions(file) for file in tmp_path.iterdir()} == {0o600}
        path.unlink()
        async with client_of(bank, store=path):
            assert permissions(path) == 0o600
    finally:
        os.umask(old)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "directory"])
async def test_a_store_is_a_file_of_its_own(kind, tmp_path):
    path = tmp_path / "c.db"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        (tmp_path / "elsewhere.db").touch()
        path.symlink_to(tmp_path / "elsewhere.db")
    else:
        path.mkdir()
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    with pytest.raises(StoreFailed, match=r"regular file|symbolic link"):
        async with client_of(bank, store=path):
            pass


@pytest.mark.parametrize(
    "extra",
    ["CREATE TRIGGER t AFTER INSERT ON credits BEGIN DELETE FROM credits; END",
     "CREATE TABLE more (x)", "CREATE VIEW v AS SELECT 1"],
)  # fmt: skip
async def test_a_store_with_foreign_content_is_refused(extra, tmp_path):
    path = tmp_path / "c.db"
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    async with client_of(bank, store=path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(extra)
    with pytest.raises(StoreFailed, match="has tables that no store of credits has"):
        async with client_of(bank, store=path):
            pass


async def test_a_store_of_the_first_version_is_read_and_what_it_knows_comes_marked(tmp_path):
    path = tmp_path / "c.db"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.executescript(
            "CREATE TABLE credits (reference TEXT PRIMARY KEY, done INTEGER NOT NULL) "
            "WITHOUT ROWID; PRAGMA user_version = 1;"
            "INSERT INTO credits VALUES ('REF00000001', 0), ('REF00000009', 1);"
        )
    bank = SmallBank()
    bank.add_credits(2)
    async with serving(bank), client_of(bank, store=path) as client:
        taken = [credit.may_be_repeated async for credit in client.transactions()]
    assert taken == [True, False]


async def test_a_batch_that_could_not_be_marked_is_handed_over_later(tmp_path):
    bank = SmallBank()
    bank.add_credits(2)
    async with serving(bank), client_of(bank, store=tmp_path / "c.db") as client:
        stream = client.transactions()
        assert client._store is not None
        file = client._store._file
        assert file is not None
        file.execute("PRAGMA query_only = 1")
        for _ in range(2):
            with pytest.raises(StoreFailed, match="readonly"):
                await anext(stream.batches())
        file.execute("PRAGMA query_only = 0")
        assert [len(batch) async for batch in stream.batches()] == [2]
    assert bank.acknowledged == 2


async def test_a_batch_that_was_begun_credit_by_credit_is_not_left_for_the_next_one():
    bank = SmallBank()
    bank.add_credits(3)
    async with serving(bank), client_of(bank) as client:
        stream = client.transactions()
        await anext(stream)
        with pytest.raises(UsageError, match="credit by credit"):
            await anext(stream.batches())
        assert [credit.sequence async for credit in stream] == [2, 3]


async def test_a_store_of_another_version_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "c.db") as file:
        file.execute("PRAGMA user_version = 7")
    file.close()
    bank = SmallBank()
    bank.url = "http://127.0.0.1:1"
    with pytest.raises(StoreFailed, match="version 7"):
        async with client_of(bank, store=tmp_path / "c.db"):
            pass


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
