"""The tables of the journal, and what in them is believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from neo_async import (
    JournalFailed,
)
from neo_async.execution.journal import Journal
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
    "another version": "PRAGMA user_version = 3",
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
