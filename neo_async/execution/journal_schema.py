"""The tables of the journal, and the rows in them.

The journal is a SQLite file in WAL mode, version 3, which other programs may query while it is
written. It has these tables and nothing else:

    intents
        id             counts from 1
        at_ns          Unix nanoseconds at which it was written, before it was sent
        ucc            the account
        action         place, modify or cancel (an exit of a cover or bracket order, too)
        client_tag     the client tag of a placement; empty for the other actions
        order_number   of the order concerned; of a placement as soon as it is known
        form           what was to be sent: JSON by the wire's own names (it holds no secret)
        outcome        NULL while it is in flight, or one of Outcome
        outcome_at_ns  when that was written
        reason         the broker's words or the failure, where there is one
    halts
        ucc            the account, which has a row while its orders are halted
        reason         why they were halted
        since          Unix seconds of the halt
        cancels_open   what the halt was to cancel, see CancelScope
    settled
        ucc            the account
        id             every intent of the account up to this one has a final outcome
    plans
        ucc            the account
        id             id of an exit plan: the client tags of its orders begin with it
        state          JSON, see neo_async.exits.state.PlanState
        is_final       1 when the plan has ended, else 0

The table `settled` has nothing to do with delivery against payment; files exist that hold it.

A login does not read the whole table: `settled` marks where the open intents begin, and since ids
rise with the time, the recent ones are found by bisection. An index would do the same, and cost
every order about 10 µs. Files of version 1, which had only `intents`, and of version 2, which had
no `plans`, are migrated in place.
"""

from __future__ import annotations

import contextlib
import sqlite3
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec

from neo_async.errors import Halted

VERSION = 3
"""Version of the tables, kept as the file's `user_version`."""

_CREATE_INTENTS = """
CREATE TABLE IF NOT EXISTS intents (
    id INTEGER PRIMARY KEY,
    at_ns INTEGER NOT NULL,
    ucc TEXT NOT NULL,
    action TEXT NOT NULL,
    client_tag TEXT NOT NULL,
    order_number TEXT NOT NULL,
    form TEXT NOT NULL,
    outcome TEXT,
    outcome_at_ns INTEGER,
    reason TEXT NOT NULL DEFAULT ''
)
"""
_CREATE_HALTS = """
CREATE TABLE IF NOT EXISTS halts (
    ucc TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    since REAL NOT NULL,
    cancels_open INTEGER NOT NULL
)
"""
_CREATE_SETTLED = """
CREATE TABLE IF NOT EXISTS settled (
    ucc TEXT PRIMARY KEY,
    id INTEGER NOT NULL
)
"""
_CREATE_PLANS = """
CREATE TABLE IF NOT EXISTS plans (
    ucc TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    is_final INTEGER NOT NULL,
    PRIMARY KEY (ucc, id)
)
"""
TABLES = {
    "intents": _CREATE_INTENTS,
    "halts": _CREATE_HALTS,
    "settled": _CREATE_SETTLED,
    "plans": _CREATE_PLANS,
}

INSERT_INTENT = (
    "INSERT INTO intents (id, at_ns, ucc, action, client_tag, order_number, form) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
UPDATE_OUTCOME = (
    "UPDATE intents SET outcome = ?, outcome_at_ns = ?, reason = ?, "
    "order_number = coalesce(nullif(?, ''), order_number) WHERE id = ?"
)
WRITE_HALT = "INSERT OR REPLACE INTO halts (ucc, reason, since, cancels_open) VALUES (?, ?, ?, ?)"
CLEAR_HALT = "DELETE FROM halts WHERE ucc = ?"
WRITE_PLAN = "INSERT OR REPLACE INTO plans (ucc, id, state, is_final) VALUES (?, ?, ?, ?)"
SELECT_PLANS = "SELECT state FROM plans WHERE ucc = ? AND is_final = 0 ORDER BY rowid"
SELECT_ALL_PLANS = "SELECT ucc, state FROM plans ORDER BY rowid"
WRITE_SETTLED = "INSERT OR REPLACE INTO settled (ucc, id) VALUES (?, ?)"

# An outcome that is no word of Outcome counts as open here, so that it is read and refused.
_IS_OPEN = (
    "(outcome IS NULL OR outcome NOT IN "
    "('accepted', 'rejected', 'not sent', 'not accepted', 'lapsed'))"
)
SELECT_OPEN_IDS = f"SELECT id FROM intents WHERE id > ? AND ucc = ? AND {_IS_OPEN}"
SELECT_INTENTS = (
    "SELECT id, at_ns, action, client_tag, order_number, "
    f"CASE WHEN {_IS_OPEN} THEN form ELSE '' END, outcome, reason FROM intents "
    f"WHERE id >= ? AND ucc = ? AND (({_IS_OPEN} AND id > ? AND (action <> 'cancel' OR id <= ?)) "
    "OR (action = 'place' AND at_ns >= CASE order_number WHEN '' THEN ? ELSE ? END)) ORDER BY id"
)
SELECT_PLACED = (
    "SELECT id, at_ns, action, client_tag, order_number, '', outcome, reason FROM intents "
    "WHERE id >= ? AND ucc = ? AND action = 'place' "
    "AND order_number IN (SELECT value FROM json_each(?)) ORDER BY id"
)
SELECT_UNCANCELLED = (
    "SELECT id, at_ns, action, client_tag, order_number, form, outcome, reason FROM intents "
    "WHERE id >= ? AND ucc = ? AND action = 'place' AND order_number <> '' "
    """AND (at_ns >= ? OR form LIKE '%"am":"YES"%') """
    "AND order_number NOT IN (SELECT order_number FROM intents WHERE id >= ? AND ucc = ? "
    "AND action = 'cancel' AND outcome = 'accepted') ORDER BY id DESC"
)
SELECT_SUBJECT = "SELECT action, client_tag, order_number FROM intents WHERE id = ?"
SELECT_LAST_ID = "SELECT coalesce(max(id), 0) FROM intents"
SELECT_SETTLED = "SELECT id FROM settled WHERE ucc = ?"
SELECT_HALT = "SELECT reason, since, cancels_open FROM halts WHERE ucc = ?"
_SELECT_TIME = "SELECT at_ns FROM intents WHERE id >= ? ORDER BY id LIMIT 1"

_ACTIONS = ("place", "modify", "cancel")
_MAX_ID = 1 << 62
"""Highest id that is believed; none that was counted from 1 comes near it."""

_json_object = msgspec.json.Decoder(dict[str, object])

Row = tuple[object, ...]
Write = tuple[str, Row]
"""A statement and its values."""


class Outcome(StrEnum):
    """The outcome of an order request."""

    ACCEPTED = "accepted"
    """The broker accepted the request; so it has an order number."""
    REJECTED = "rejected"
    """The broker refused the request."""
    NOT_SENT = "not sent"
    """No byte of the request was sent."""
    UNKNOWN = "unknown"
    """The request is in flight: its answer was lost, and no report has proven yet whether it took
    effect."""
    NOT_ACCEPTED = "not accepted"
    """The request was sent, and proven to have had no effect."""
    # The stored word is older than the name. Files exist that hold it, so it stays: a journal with
    # "unresolved" could not be read by the version that wrote "lapsed", nor the other way.
    UNRESOLVED = "lapsed"
    """The outcome stays unknown: nothing proved it in time, or it is of an earlier day, and the
    order book is only of today."""

    @property
    def is_final(self) -> bool:
        return self is not Outcome.UNKNOWN


_OUTCOMES: dict[object, Outcome | None] = {None: None, **{one.value: one for one in Outcome}}


class Intent(msgspec.Struct, frozen=True, gc=False):
    """An order request in the journal."""

    id: int
    at_ns: int
    action: str
    client_tag: str
    order_number: str
    form: str
    """JSON; empty where the query left it out."""
    outcome: Outcome | None
    reason: str

    @property
    def is_open(self) -> bool:
        """Whether it has no final outcome."""
        return self.outcome is None or not self.outcome.is_final


class CancelScope(IntEnum):
    """The open orders that a halt cancels."""

    NONE = 0
    ALL = 1
    ALL_BUT_EXITS = 2
    """All but the exit orders of plans: stops and targets stay."""


class Halt(NamedTuple):
    """A row of the table `halts`."""

    reason: str
    since: float
    scope: CancelScope


class Unreadable(Exception):
    """The content of a file is not that of a journal."""


def storable(value: str) -> str:
    """Return a text that can be stored. Half a surrogate pair, which JSON can hold, cannot be."""
    if value.isascii():
        return value
    return value.encode(errors="backslashreplace").decode()


def check_schema(file: sqlite3.Connection) -> None:
    """Raise Unreadable when the file holds anything but the tables of a journal."""
    for kind, name, sql in file.execute("SELECT type, name, sql FROM sqlite_master"):
        if kind in ("table", "index") and str(name).startswith("sqlite_"):
            continue  # SQLite's own
        expected = TABLES.get(name) if kind == "table" else None
        if expected is None:
            raise Unreadable(f"it holds the {kind} {name!r}, which no journal has")
        if " ".join(str(sql).split()) != " ".join(expected.split()).replace("IF NOT EXISTS ", ""):
            raise Unreadable(f"its table {name!r} has other columns than a journal's: {sql}")


def read_ids(file: sqlite3.Connection, ucc: str) -> tuple[int, int]:
    """Return the highest id, and the one up to which the account's intents have final outcomes.

    Raises Unreadable."""
    (last,) = file.execute(SELECT_LAST_ID).fetchone()
    found = file.execute(SELECT_SETTLED, (ucc,)).fetchone()
    resolved_up_to = 0 if found is None else found[0]
    if not (isinstance(resolved_up_to, int) and 0 <= resolved_up_to <= last <= _MAX_ID):
        raise Unreadable(f"its intents end with {last}, and are resolved up to {resolved_up_to!r}")
    return last, resolved_up_to


def read_halt(file: sqlite3.Connection, ucc: str) -> Halt | None:
    """Return the halt of the account, if there is one. Raises Unreadable."""
    row = file.execute(SELECT_HALT, (ucc,)).fetchone()
    if row is None:
        return None
    reason, since, scope = row
    if isinstance(reason, str) and isinstance(since, float) and scope in {*CancelScope}:
        with contextlib.suppress(ValueError, OverflowError, OSError):
            Halted(reason, since=since)
            return Halt(reason, since, CancelScope(scope))
    raise Unreadable(f"{row!r} in its table 'halts' is no halt")


def intent_of(row: Row) -> Intent:
    """Return the intent of a row as the SELECTs above give it. Raises Unreadable."""
    intent, at_ns, action, client_tag, order_number, form, outcome, reason = row
    if not (
        isinstance(intent, int)
        and isinstance(at_ns, int)
        and isinstance(action, str)
        and action in _ACTIONS
        and isinstance(client_tag, str)
        and isinstance(order_number, str)
        and isinstance(form, str)
        and isinstance(reason, str)
        and outcome in _OUTCOMES
    ):
        raise Unreadable(
            f"its intent {intent} is none of a journal: action={action!r}, at_ns={at_ns!r}, "
            f"client_tag={client_tag!r}, order_number={order_number!r}, outcome={outcome!r}, "
            f"reason={reason!r}"
        )
    if form and not _is_json_object(form):
        raise Unreadable(f"the form of its intent {intent} is no JSON object: {form[:80]!r}")
    return Intent(intent, at_ns, action, client_tag, order_number, form, _OUTCOMES[outcome], reason)


def _is_json_object(form: str) -> bool:
    try:
        _json_object.decode(form)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def first_since(file: sqlite3.Connection, since_ns: int, last: int) -> int:
    """Return the id of the first intent since then, by bisection: ids rise with the time."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        found = file.execute(_SELECT_TIME, (middle,)).fetchone()
        if found is not None and not isinstance(found[0], int):
            raise Unreadable(f"the time of its intent {middle} is {found[0]!r}")
        if found is None or found[0] >= since_ns:
            high = middle
        else:
            low = middle + 1
    return low
