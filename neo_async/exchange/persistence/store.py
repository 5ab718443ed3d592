"""The state file: a SQLite database with a market as it stood once, and what was done to it since.

What is written counts once `commit` has returned: it then survives the death of this process at any
moment. (Of the whole machine, the last moments before a power cut may be missing, but the file
stays whole.)

Orders have a table of their own, by their place in the ledger, so that only those are written that
have changed. They may be written ahead of the market that they belong to, and count from its
version on: until then the ones before them do.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from neo_async.errors import UsageError
from neo_async.exchange.engine.commands import JournalEntry
from neo_async.exchange.engine.snapshot import EngineState
from neo_async.exchange.engine.types import OrderRecord
from neo_async.exchange.funds.types import FundState
from neo_async.exchange.history.trade_tape import TradeTapeRow
from neo_async.system import files

_APPLICATION: Final = 0x4E454F58
"""Application id of these files."""
_VERSION: Final = 6
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS beginning (content BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS state (version INTEGER, entries INTEGER, content BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS orders (place INTEGER, version INTEGER, content BLOB NOT NULL, "
    "PRIMARY KEY (place, version))",
    "CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, entry BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS candles (segment TEXT, token TEXT, minute INTEGER, open INTEGER, "
    "high INTEGER, low INTEGER, close INTEGER, volume INTEGER, open_interest INTEGER, "
    "PRIMARY KEY (segment, token, minute)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS funds (content BLOB NOT NULL)",
)
_SCHEMA: Final = frozenset(table.replace("IF NOT EXISTS ", "") for table in _TABLES)
"""The tables' statements as SQLite keeps them."""
T = TypeVar("T")

_PATIENCE: Final = 1.0
"""Seconds to wait for a process that still has the file open."""
_PORTION: Final = 1_000
"""Rows read at once."""

_encode = msgspec.msgpack.Encoder().encode


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with which the market opened first, and which stay."""

    seed: int
    market_makers: bool
    opened_ns: int


class Store:
    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises UsageError when it cannot be ours."""
        self.path = path
        self._version = 0
        """Version of the state in the file."""
        self._entries = self._kept_entries = 0
        """Numbers of the journal's last entry, and of the last that the state has in it."""
        try:
            # What SQLite puts beside the file gets its mode.
            files.make_private(path)
            for suffix in ("-wal", "-shm", "-journal"):
                files.make_private(Path(f"{path}{suffix}"), create=False)
            # Opened by a thread, used by the loop's: never by two at a time.
            self._database = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except OSError as error:
            raise self._unusable(f"unable to open it: {error.strerror}") from error
        except (sqlite3.Error, ValueError) as error:
            raise self._unusable(str(error)) from error
        try:
            # Exclusive, which also saves the shared memory of WAL.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._claim()
        except UsageError:
            self._database.close()
            raise
        except (sqlite3.Error, UnicodeError) as error:  # the latter for damaged text of the schema
            self._database.close()
            raise self._unusable(str(error)) from error

    def _claim(self) -> None:
        # A file from elsewhere is data: neither its views nor its triggers may run anything.
        self._database.execute("PRAGMA trusted_schema = OFF")
        tables = self._value("SELECT count(*) FROM sqlite_master")
        if tables and self._value("PRAGMA application_id") != _APPLICATION:
            raise self._unusable("is a database of something else")
        if tables and self._value("PRAGMA user_version") != _VERSION:
            raise self._unusable("was made by another version of the exchange")
        for kind, name, statement in self._database.execute(
            "SELECT type, name, sql FROM sqlite_master"
        ):
            if kind == "index" and statement is None:
                continue  # SQLite's own, for a primary key
            if kind != "table" or statement not in _SCHEMA:
                raise self._unusable(f"holds a {kind} {name!r} that the exchange did not make")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._database.execute(f"PRAGMA user_version = {_VERSION}")
            for table in _TABLES:
                self._database.execute(table)

    def close(self) -> None:
        self._database.close()

    @contextlib.contextmanager
    def read_as_foreign(self) -> Iterator[None]:
        """Raise UsageError for any failure while a market is made from the file. A damaged file can
        be well-formed and still describe no market."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:
            raise self._unusable(f"is damaged ({type(error).__name__}: {error})") from error

    # --- reading ------------------------------------------------------------------------------

    def beginning(self) -> Beginning | None:
        """Return what the market began with; None for a new file."""
        return self._read("SELECT content FROM beginning", Beginning)

    def state(self) -> EngineState:
        """Return the market that the journal goes on from, and delete what was written ahead of the
        next."""
        state = self._read("SELECT content FROM state", EngineState)
        if state is None:
            raise self._unusable("has no market in it")
        self._version = self._number("SELECT version FROM state")
        self._kept_entries = self._number("SELECT entries FROM state")
        self._database.execute("DELETE FROM journal WHERE number <= ?", (self._kept_entries,))
        self._entries = max(
            self._kept_entries, self._number("SELECT coalesce(max(number), 0) FROM journal")
        )
        self._database.execute("DELETE FROM orders WHERE version > ?", (self._version,))
        self._database.execute(
            "DELETE FROM orders WHERE version < "
            "(SELECT max(version) FROM orders AS newer WHERE newer.place = orders.place)"
        )
        rows = self._database.execute("SELECT content FROM orders ORDER BY place")
        orders = [self._decode(content, OrderRecord) for (content,) in rows]
        return msgspec.structs.replace(state, orders=orders)

    def entries(self) -> Iterator[JournalEntry]:
        """Yield the entries of the journal, oldest first."""
        rows = self._database.execute("SELECT entry FROM journal ORDER BY number")
        while portion := rows.fetchmany(_PORTION):
            for (entry,) in portion:
                yield self._decode(entry, JournalEntry)

    def candles(self) -> Iterator[TradeTapeRow]:
        """Return the candles of all trades before the journal."""
        for row in self._database.execute("SELECT * FROM candles ORDER BY minute"):
            yield msgspec.convert(row, TradeTapeRow)

    def funds(self) -> FundState | None:
        """Return the fund simulator's last state; None if there is none."""
        return self._read("SELECT content FROM funds", FundState)

    # --- writing: each of these is one transaction ----------------------------------------------

    def begin(self, beginning: Beginning, state: EngineState) -> None:
        """Forget everything, and start over."""
        with self._transaction():
            self._database.execute("DELETE FROM candles")
            self._replace("beginning", beginning)
            self._database.execute("DELETE FROM journal")
            self._database.execute("DELETE FROM orders")
            self._version = self._entries = self._kept_entries = 0
            self._write_state(state, 0)

    def append(self, entries: Iterable[JournalEntry]) -> None:
        """Lengthen the journal."""
        rows = [(number, _encode(entry)) for number, entry in enumerate(entries, self._entries + 1)]
        with self._transaction():
            self._database.executemany("INSERT INTO journal VALUES (?, ?)", rows)
        self._entries += len(rows)

    def write_ahead(self, orders: Iterable[OrderRecord]) -> None:
        """Write some orders of the market that the next `compact` will keep."""
        with self._transaction():
            self._write_orders(orders)

    def compact(
        self, state: EngineState, orders: Iterable[OrderRecord], candles: Iterable[TradeTapeRow]
    ) -> None:
        """Keep a market as it stands in place of what led to it. `orders` and `candles` are those
        that have changed since the last time, without what was written ahead; the ledger of the
        state is not looked at."""
        with self._transaction():
            self._write_orders(orders)
            self._write_state(state, self._version + 1)
            self._database.executemany(
                "INSERT OR REPLACE INTO candles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", candles
            )

        self._version += 1
        self._kept_entries = self._entries

    def shorten_journal(self, count: int) -> bool:
        """Drop so many entries that the state has in it; whether there may be more."""
        dropped = self._database.execute(
            "DELETE FROM journal WHERE number IN "
            "(SELECT number FROM journal WHERE number <= ? ORDER BY number LIMIT ?)",
            (self._kept_entries, count),
        )
        return dropped.rowcount == count

    def _write_orders(self, orders: Iterable[OrderRecord]) -> None:
        version = self._version + 1
        self._database.executemany(
            "INSERT OR REPLACE INTO orders VALUES (?, ?, ?)",
            [(order.place, version, _encode(order)) for order in orders],
        )

    def _write_state(self, state: EngineState, version: int) -> None:
        content = _encode(msgspec.structs.replace(state, orders=[]))
        self._database.execute("DELETE FROM state")
        self._database.execute(
            "INSERT INTO state VALUES (?, ?, ?)", (version, self._entries, content)
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
        return None if row is None else self._decode(row[0], kind)

    def _number(self, query: str) -> int:
        value = self._value(query)
        if not isinstance(value, int):
            raise self._unusable(f"is damaged: {value!r} stands where a number is expected")
        return value

    def _decode(self, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.msgpack.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            raise self._unusable(
                f"is damaged, or was made by another version of the exchange: {error}"
            ) from error

    def _value(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

    def _unusable(self, why: str) -> UsageError:
        return UsageError(
            f"state file {self.path}: {why}; must be a state file of this exchange that no other "
            "process has open, or not be there yet"
        )


class _Transaction:
    """A database transaction. A class, and no generator, as it is entered for every few orders."""

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
