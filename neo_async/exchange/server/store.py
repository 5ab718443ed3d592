"""The state file: a SQLite database with a market as it stood once, and what was done to it since.

What is written counts once `commit` has returned: it then survives the death of this process at any
moment. (Of the whole machine, the last moments before a power cut may be missing, but the file
stays whole.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from neo_async.errors import UsageError
from neo_async.exchange.core.journal import Entry
from neo_async.exchange.core.state import State
from neo_async.exchange.funds.types import FundState
from neo_async.exchange.server.tape import TapeRow

_APPLICATION: Final = 0x4E454F58
"""Tells these files from other databases."""
_VERSION: Final = 4
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS beginning (content BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS state (content BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, entry BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS candles (segment TEXT, token TEXT, minute INTEGER, open INTEGER, "
    "high INTEGER, low INTEGER, close INTEGER, volume INTEGER, open_interest INTEGER, "
    "PRIMARY KEY (segment, token, minute)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS funds (content BLOB NOT NULL)",
)
T = TypeVar("T")

_PATIENCE: Final = 1.0
"""Seconds to wait for a process that still has the file open."""
_PORTION: Final = 1_000
"""Rows read at once."""

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """What stays as it was when the market opened first."""

    seed: int
    makers: bool
    opened_ns: int


class Store:
    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises UsageError when it cannot be ours."""
        self.path = path
        try:
            # Opened by a thread, used by the loop's: never by two at a time.
            self._database = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from error
        try:
            # Nobody else may have it open; that spares us the shared memory of WAL, too.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._claim()
        except sqlite3.Error as error:
            self._database.close()
            raise self._unusable(str(error)) from error
        except UsageError:
            self._database.close()
            raise

    def _claim(self) -> None:
        tables = self._value("SELECT count(*) FROM sqlite_master")
        if tables and self._value("PRAGMA application_id") != _APPLICATION:
            raise self._unusable("is a database of something else")
        if tables and self._value("PRAGMA user_version") != _VERSION:
            raise self._unusable("was made by another version of the exchange")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._database.execute(f"PRAGMA user_version = {_VERSION}")
            for table in _TABLES:
                self._database.execute(table)

    def close(self) -> None:
        self._database.close()

    # --- reading ------------------------------------------------------------------------------

    def beginning(self) -> Beginning | None:
        """None of a file that is new."""
        return self._read("SELECT content FROM beginning", Beginning)

    def state(self) -> State:
        """The market that the journal goes on from."""
        state = self._read("SELECT content FROM state", State)
        if state is None:
            raise self._unusable("has no market in it")
        return state

    def entries(self) -> Iterator[Entry]:
        """The journal, oldest first."""
        rows = self._database.execute("SELECT entry FROM journal ORDER BY number")
        while portion := rows.fetchmany(_PORTION):
            for (entry,) in portion:
                yield _decode_entry(entry)

    def candles(self) -> Iterator[TapeRow]:
        """Of every trade before the journal."""
        for segment, *values in self._database.execute("SELECT * FROM candles ORDER BY minute"):
            yield TapeRow(segment, *values)

    def funds(self) -> FundState | None:
        """The fund house as it was kept last; None when it never was."""
        return self._read("SELECT content FROM funds", FundState)

    # --- writing: each of these is one transaction ----------------------------------------------

    def begin(self, beginning: Beginning, state: State) -> None:
        """Forget everything, and start over."""
        with self._transaction():
            self._database.execute("DELETE FROM candles")
            self._replace("beginning", beginning)
            self._database.execute("DELETE FROM journal")
            self._replace("state", state)

    def append(self, entries: Iterable[Entry]) -> None:
        """Lengthen the journal."""
        rows = [(_encode(entry),) for entry in entries]
        with self._transaction():
            self._database.executemany("INSERT INTO journal (entry) VALUES (?)", rows)

    def compact(self, state: State, candles: Iterable[TapeRow]) -> None:
        """Keep a market as it stands in place of what led to it. `candles` are those that have
        changed since the last time."""
        with self._transaction():
            self._database.execute("DELETE FROM journal")
            self._replace("state", state)
            self._database.executemany(
                "INSERT OR REPLACE INTO candles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", candles
            )

    def keep_funds(self, state: FundState) -> None:
        with self._transaction():
            self._replace("funds", state)

    # --- SQLite -------------------------------------------------------------------------------

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database)

    def _replace(self, table: str, content: object) -> None:
        self._database.execute(f"DELETE FROM {table}")
        self._database.execute(f"INSERT INTO {table} VALUES (?)", (_encode(content),))

    def _read(self, query: str, kind: type[T]) -> T | None:
        row = self._database.execute(query).fetchone()
        if row is None:
            return None
        try:
            return msgspec.msgpack.decode(row[0], type=kind)
        except msgspec.MsgspecError as error:
            raise self._unusable(f"was made by another version of the exchange: {error}") from error

    def _value(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

    def _unusable(self, why: str) -> UsageError:
        return UsageError(
            f"state file {self.path}: {why}; must be a state file of this exchange that no other "
            "process has open, or not be there yet"
        )


class _Transaction:
    """All or nothing. A class, as it is entered for every few orders."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._database.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
