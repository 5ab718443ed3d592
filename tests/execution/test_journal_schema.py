"""The tables of the journal, and what in them is believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    JournalFailed,
    Outcome,
)
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import (
    INSERT_INTENT,
    TABLES,
    WRITE_HALT,
    WRITE_SETTLED,
    Halt,
    Intent,
    Unreadable,
    check_schema,
    first_since,
    intent_of,
    read_halt,
    read_ids,
    storable,
)
from tests.execution.journals import opened, read_as_a_login_does

ROW = "INSERT INTO intents VALUES (9, {}, 'ABC12', {}, 't', '', {}, {}, NULL, '')"


DAMAGED = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON intents BEGIN DELETE FROM intents; END",
    "a view": "CREATE VIEW today AS SELECT * FROM intents",
    "a view in the place of a table": "DROP TABLE halts; CREATE VIEW halts AS SELECT 1",
    "a table of others": "CREATE TABLE notes (text)",
    "an index of others": "CREATE UNIQUE INDEX one ON intents (ucc)",
    "another column": "ALTER TABLE intents ADD COLUMN extra",
    "a table fewer columns": "DROP TABLE settled; CREATE TABLE settled (ucc)",
    "an unknown outcome": ROW.format(1, "'place'", "'{}'", "'perhaps'"),
    "an unknown action": ROW.format(1, "'steal'", "'{}'", "NULL"),
    "a time that is text": ROW.format("'noon'", "'place'", "'{}'", "NULL"),
    "a form that is no JSON": ROW.format(1, "'place'", "'{'", "NULL"),
    "a form of bytes": ROW.format(1, "'place'", "x'ff'", "NULL"),
    "text that is none": ROW.format(1, "'place'", "CAST(x'ff' AS TEXT)", "NULL"),
    "an id without end": "UPDATE intents SET id = 9223372036854775807",
    "a halt at no time": "INSERT INTO halts VALUES ('ABC12', 'r', 'noon', 1)",
    "a halt at the end of time": "INSERT INTO halts VALUES ('ABC12', 'r', 1e300, 1)",
    "a halt of bytes": "INSERT INTO halts VALUES ('ABC12', x'ff', 1e9, 1)",
    "settled what is not there": "INSERT OR REPLACE INTO settled VALUES ('ABC12', 77)",
    "settled a text": "INSERT OR REPLACE INTO settled VALUES ('ABC12', 'all')",
    "another version": "PRAGMA user_version = 4",
}


@pytest.mark.parametrize("sql", DAMAGED.values(), ids=DAMAGED.keys())
async def test_a_file_that_others_have_changed_is_refused_by_its_name(
    tmp_path: Path, sql: str
) -> None:
    path = tmp_path / "orders.db"
    journal = opened(path)
    await journal.begin("place", {}, client_tag="t_1")
    await journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.executescript(sql)
    journal = Journal(path, ucc="ABC12")
    with pytest.raises(JournalFailed) as caught:
        await read_as_a_login_does(journal)
    await journal.close()
    assert f"the journal {path} " in str(caught.value)
    assert "move it away" in str(caught.value) or "give it another file" in str(caught.value)
    with closing(sqlite3.connect(path)) as file:  # nothing of theirs has run
        assert file.execute("SELECT count(*) FROM intents").fetchone()[0] >= 1


# --- rows by themselves ---------------------------------------------------------------------------


def tables() -> sqlite3.Connection:
    """The tables of a journal, in memory."""
    file = sqlite3.connect(":memory:", isolation_level=None)
    for create in TABLES.values():
        file.execute(create)
    return file


def test_the_tables_of_a_journal_pass_their_own_check() -> None:
    with closing(tables()) as file:
        check_schema(file)
        assert read_ids(file, "ABC12") == (0, 0)
        assert read_halt(file, "ABC12") is None


@given(st.text(st.characters()))
def test_every_text_can_be_stored_and_what_is_no_half_pair_stays_the_same(text: str) -> None:
    stored = storable(text)
    with closing(sqlite3.connect(":memory:")) as file:
        assert file.execute("SELECT ?", (stored,)).fetchone() == (stored,)
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert stored == text


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_an_intent_is_open_until_it_has_a_final_outcome(outcome: Outcome | None) -> None:
    word = None if outcome is None else outcome.value
    intent = intent_of((1, 10, "place", "t", "", "{}", word, ""))
    assert intent == Intent(1, 10, "place", "t", "", "{}", outcome, "")
    assert intent.is_open is (outcome in (None, Outcome.UNKNOWN))


GOOD: dict[str, Any] = {
    "id": 1, "at_ns": 10, "action": "place", "client_tag": "t", "order_number": "",
    "form": "{}", "outcome": None, "reason": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "1"), ("at_ns", None), ("at_ns", 1.5), ("action", "steal"), ("action", b"place"),
        ("client_tag", None), ("order_number", 11), ("form", b"{}"), ("form", "["), ("form", "[]"),
        ("form", "{" * 5000), ("outcome", "perhaps"), ("outcome", 0), ("reason", None),
    ],
)  # fmt: skip
def test_a_row_that_no_journal_writes_is_refused_with_its_id(field: str, value: object) -> None:
    row = {**GOOD, field: value}
    with pytest.raises(Unreadable, match=f"intent {row['id']}"):
        intent_of(tuple(row.values()))


def test_a_form_that_the_query_leaves_out_is_empty() -> None:
    assert intent_of(tuple({**GOOD, "form": ""}.values())).form == ""


@given(
    times=st.lists(st.integers(0, 20), max_size=12).map(sorted),
    since=st.integers(-1, 21),
)
def test_the_first_intent_since_a_time_is_found_by_bisection(times: list[int], since: int) -> None:
    with closing(tables()) as file:
        for number, at_ns in enumerate(times, start=1):
            file.execute(INSERT_INTENT, (number, at_ns, "ABC12", "place", "t", "", "{}"))
        later = [number for number, at_ns in enumerate(times, start=1) if at_ns >= since]
        assert first_since(file, since, len(times)) == min(later, default=len(times) + 1)


@given(st.sets(st.integers(1, 12)), st.integers(0, 13))
def test_the_first_intent_since_a_time_is_found_where_ids_are_missing(
    numbers: set[int], since: int
) -> None:
    """Ids are missing where a write was given up; the time of an intent is its id here."""
    with closing(tables()) as file:
        for number in sorted(numbers):
            file.execute(INSERT_INTENT, (number, number, "ABC12", "place", "t", "", "{}"))
        last = max(numbers, default=0)
        first = first_since(file, since, last)
        assert [n for n in sorted(numbers) if n >= first] == [
            n for n in sorted(numbers) if n >= since
        ]


def test_ids_and_halts_are_read_of_the_account_alone() -> None:
    with closing(tables()) as file:
        for number in (1, 2, 3):
            file.execute(INSERT_INTENT, (number, 1, "ABC12", "place", "t", "", "{}"))
        file.execute(WRITE_SETTLED, ("ABC12", 2))
        file.execute(WRITE_HALT, ("ABC12", "day loss", 1e9, 1))
        assert read_ids(file, "ABC12") == (3, 2)
        assert read_ids(file, "XYZ99") == (3, 0)
        assert read_halt(file, "ABC12") == Halt("day loss", 1e9, True)
        assert read_halt(file, "XYZ99") is None


@pytest.mark.parametrize("up_to", [-1, 4, 2.5, "all"])
def test_intents_cannot_be_resolved_beyond_those_that_exist(up_to: object) -> None:
    with closing(tables()) as file:
        for number in (1, 2, 3):
            file.execute(INSERT_INTENT, (number, 1, "ABC12", "place", "t", "", "{}"))
        file.execute(WRITE_SETTLED, ("ABC12", up_to))
        with pytest.raises(Unreadable, match="end with 3, and are resolved up to"):
            read_ids(file, "ABC12")
