"""Decode the bank's answers: refusals become exceptions, the rest typed values."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from neo_async.banking.mapping import (
    Formats,
    Json,
    Unreadable,
    count,
    decode,
    getter,
    known,
    list_getter,
    text,
)
from neo_async.banking.model import (
    AccountState,
    AccountStatus,
    Credit,
    Refund,
    RefundStatus,
    Refusal,
)
from neo_async.banking.names import Call
from neo_async.banking.profile import BankingProfile
from neo_async.base import logs
from neo_async.errors import (
    BODY_EXCERPT,
    BankRejected,
    NeoError,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionEnded,
    UnreadableCredit,
)
from neo_async.model.answer import Answer
from neo_async.wire.answers import retry_after
from neo_async.wire.lenient import UNREADABLE

T = TypeVar("T")

log = logging.getLogger(logs.BANKING)

_TIMED_OUT = frozenset({408, 424, 499})
"""HTTP statuses of failures of the gateway: the service may have processed the request."""

_REFUSED_BY_GATEWAY = frozenset({403, 404, 405, 415})
"""HTTP statuses of requests refused by the gateway, before the service received them."""

_NO_SENSE = "the answer does not match the profile"


class ItemResult(msgspec.Struct, frozen=True):
    """The bank's result for one account of a request."""

    number: str
    is_done: bool
    code: str
    message: str
    refusal: Refusal | None
    """The bank's refusal; None when the change is done, or when the bank's codes mean neither."""


class Delivery(msgspec.Struct, frozen=True):
    """A batch of credits as received."""

    batch_id: str
    delivery_count: int
    """Number of times the bank has sent it, this one included; 1 when not reported."""
    entries: list[Credit | Unread]
    """Credits and unreadable entries, in the bank's order."""


class Unread(msgspec.Struct, frozen=True):
    """An entry of a batch that is not readable as a credit."""

    reference: str
    problem: str
    entry: str
    """The whole entry, as JSON."""

    def error(self) -> UnreadableCredit:
        return UnreadableCredit(self.problem, reference=self.reference, entry=self.entry)


class Refusals:
    """Distinguishes successes from refusals by the status words and codes of the profile."""

    def __init__(self, profile: BankingProfile) -> None:
        self._success = frozenset(profile.error.success_values)
        self._partial = frozenset(profile.error.partial_values)
        self._failed = frozenset(profile.error.failure_values)
        self._codes = profile.codes
        self._code = getter(profile.error.code)
        self._message = getter(profile.error.message)
        self._field = getter(profile.error.field)
        self._statuses = {call: getter(profile.response[call]["status"]) for call in Call}
        self._without_status = {call for call in Call if not profile.response[call]["status"]}
        self._results = {
            call: list_getter(profile.response[call]["results"])
            for call in Call
            if "results" in profile.response[call]
        }

    def open(self, call: Call, answer: Answer) -> Json:
        """Return the content of a success.

        Raises RateLimited, SessionEnded (the token is not accepted), ServerError, BankRejected and
        ProtocolError.
        """
        content = _object(answer.body)
        if answer.status >= 300 or content is None:
            raise self._failure(answer, content, "")
        if call in self._results and _read(answer, self._results[call], content):
            return content  # each account has a result of its own, whatever the overall status
        word = text(self._statuses[call](content))
        if word in self._success or word in self._partial or call in self._without_status:
            return content
        raise self._failure(answer, content, word)

    def is_done(self, word: str) -> bool:
        return word in self._success

    def refusal(self, word: str, code: str) -> Refusal | None:
        """Return the reason of a refusal; None when it is not certain that the bank has refused. A
        word that is not in the profile may mean anything, even that the money is being paid."""
        known = self._codes.get(code)
        return Refusal.OTHER if known is None and word in self._failed else known

    def _failure(self, answer: Answer, found: Json | None, word: str) -> NeoError:
        status, body = answer.status, excerpt(answer.body)
        content = found or {}
        code = text(self._code(content))
        words = text(self._message(content)) or f"the bank refused with HTTP {status}"
        refusal = self.refusal(word, code)
        if status == 429 or refusal is Refusal.THROTTLE:
            return RateLimited(words, retry_after=retry_after(answer.headers), body=body)
        if status == 401 or refusal is Refusal.AUTH:
            return SessionEnded(words, code=code or None, status=status, body=body)
        if status >= 500 or status in _TIMED_OUT or refusal is Refusal.TEMPORARY:
            return ServerError(words, code=code or None, status=status, body=body)
        if found is None and status in _REFUSED_BY_GATEWAY:
            hint = f"{words}: check base_url and paths of the profile, and your plan"
            return BankRejected(hint, refusal=Refusal.FORBIDDEN, status=status, body=body)
        if found is None:
            return ProtocolError("the answer is no JSON object", status=status, body=body)
        if status < 400 and refusal is None:
            return ProtocolError(f"{_NO_SENSE}: status {word!r}", status=status, body=body)
        if status == 403 and refusal is None:
            refusal = Refusal.FORBIDDEN
        return BankRejected(
            words,
            refusal=refusal or Refusal.OTHER,
            field=text(self._field(content)),
            code=code or None,
            status=status,
            body=body,
        )


class ResultReader:
    """Reads the results of accounts that were created, modified or deleted."""

    def __init__(self, profile: BankingProfile, call: Call, refusals: Refusals) -> None:
        names = profile.response[call]
        self._list = list_getter(names["results"])
        self._number = getter(names["results.number"])
        self._status = getter(names["results.status"])
        self._code = getter(names["results.code"])
        self._message = getter(names["results.message"])
        self._refusals = refusals

    def read(self, content: Json) -> dict[str, ItemResult]:
        """Return the results by account number. Raises ProtocolError."""
        return {item.number: item for item in _readable(self._read, content)}

    def _read(self, content: Json) -> list[ItemResult]:
        # An account without a readable row counts as missing from the answer.
        return [self._item(row) for row in self._list(content) or [] if isinstance(row, dict)]

    def _item(self, row: Json) -> ItemResult:
        word, code = text(self._status(row)), text(self._code(row))
        is_done = self._refusals.is_done(word)
        refusal = None if is_done else self._refusals.refusal(word, code)
        return ItemResult(
            number=text(self._number(row)),
            is_done=is_done,
            code=code,
            message=text(self._message(row)),
            # A failure of the bank proves nothing about the account.
            refusal=None if refusal is Refusal.TEMPORARY else refusal,
        )


class StateReader(ResultReader):
    """Reads the accounts of an inquiry."""

    def __init__(self, profile: BankingProfile, refusals: Refusals, formats: Formats) -> None:
        super().__init__(profile, Call.INQUIRY, refusals)
        self._words = {
            **{status.value: status for status in AccountStatus},
            **{word: AccountStatus(ours) for word, ours in profile.status_words.account.items()},
        }
        names = profile.response[Call.INQUIRY]
        self._get = {
            meaning.removeprefix("results."): getter(path)
            for meaning, path in names.items()
            if meaning.startswith("results.")
        }
        self._formats = formats

    def states(self, content: Json) -> list[AccountState]:
        """Return the states of the existing accounts. Raises ProtocolError."""
        return _readable(self._read_states, content)

    def _read_states(self, content: Json) -> list[AccountState]:
        rows = self._list(content) or []
        if not all(isinstance(row, dict) for row in rows):
            # If it were left out, the account would seem not to exist.
            raise Unreadable("an account is not an object")
        return [self._state(row) for row in rows if text(self._get["account_status"](row))]

    def _state(self, row: Json) -> AccountState:
        get, formats = self._get, self._formats
        word = text(get["account_status"](row))
        number = text(get["number"](row))
        unreadable = []

        def read(name: str, form: Callable[[object], T | None]) -> T | None:
            try:
                return form(get[name](row))
            except Unreadable as error:
                log.warning("%s of account %r cannot be read: %s", name, number, error)
                unreadable.append(name)
                return None

        return AccountState(
            number=number,
            status=self._words.get(word),
            status_text=word,
            name=text(get["name"](row)),
            valid_from=read("valid_from", formats.read_date),
            valid_to=read("valid_to", formats.read_date),
            min_amount=read("min_amount", formats.read_amount),
            max_amount=read("max_amount", formats.read_amount),
            mobile=text(get["mobile"](row)),
            email=text(get["email"](row)),
            description=text(get["description"](row)),
            unreadable=tuple(unreadable),
        )


class DeliveryReader:
    """Reads batches of credits. This is a hot path."""

    def __init__(self, profile: BankingProfile, formats: Formats) -> None:
        names = profile.response[Call.FETCH]
        self._batch_id = getter(names["batch_id"])
        self._delivery_count = getter(names["delivery_count"])
        self._count = getter(names["count"])
        self._list = list_getter(names["transactions"])
        self._has_list = names["transactions"]
        self._entry = _entry_reader(names, formats, dict(profile.status_words.mode))

    def read(self, content: Json) -> Delivery:
        """Return a batch. An unreadable entry keeps its position. Raises ProtocolError when some
        entries are missing, because a batch can only be acknowledged as a whole."""
        return _readable(self._read, content)

    def _read(self, content: Json) -> Delivery:
        rows = self._list(content)
        if rows is None:
            raise Unreadable(f"there is no {self._has_list}")
        promised = known(count, "the count of a batch", self._count(content))
        if promised is not None and promised != len(rows):
            raise Unreadable(f"the batch should have {promised} credits, but has {len(rows)}")
        times = known(count, "the delivery count of a batch", self._delivery_count(content))
        return Delivery(
            batch_id=text(self._batch_id(content)),
            delivery_count=1 if times is None else times,
            entries=[self._entry(row) for row in rows],
        )


def _entry_reader(
    names: Any, formats: Formats, modes: dict[str, str]
) -> Callable[[object], Credit | Unread]:
    get = {
        meaning.removeprefix("transactions."): getter(path)
        for meaning, path in names.items()
        if meaning.startswith("transactions.")
    }
    get_sequence, get_reference, get_account = get["sequence"], get["reference"], get["account"]
    get_physical, get_amount, get_currency = get["physical_account"], get["amount"], get["currency"]
    get_mode, get_utr, get_name = get["mode"], get["utr"], get["remitter_name"]
    get_remitter, get_ifsc = get["remitter_account"], get["remitter_ifsc"]
    get_narration, get_time = get["narration"], get["credited_at"]
    read_amount, read_time = formats.read_amount, formats.read_time

    def read(row: object) -> Credit | Unread:
        if not isinstance(row, dict):
            return Unread("", "it is no object", text(row))
        reference = text(get_reference(row))
        try:
            if not reference.strip():
                raise Unreadable("it cannot be identified")
            amount = read_amount(get_amount(row))
            if amount is None:
                raise Unreadable("it has no amount")
            if amount <= 0:
                raise Unreadable(f"its amount is {amount}, which is not above 0")
            mode = text(get_mode(row))
            return Credit(
                known(count, f"sequence of credit {reference!r}", get_sequence(row)),
                reference,
                text(get_account(row)),
                text(get_physical(row)),
                amount,
                text(get_currency(row)),
                modes.get(mode, mode),
                text(get_utr(row)),
                text(get_name(row)),
                text(get_remitter(row)),
                text(get_ifsc(row)),
                text(get_narration(row)),
                known(read_time, f"time of credit {reference!r}", get_time(row)),
            )
        except Unreadable as error:
            return Unread(reference, str(error), text(row))

    return read


class RefundReader:
    """Reads the state of a refund."""

    def __init__(self, profile: BankingProfile, call: Call, formats: Formats) -> None:
        self._get = {meaning: getter(path) for meaning, path in profile.response[call].items()}
        self._formats = formats
        self._words = {
            **{status.value: status for status in RefundStatus},
            **{word: RefundStatus(ours) for word, ours in profile.status_words.refund.items()},
        }

    def read(self, content: Json, key: str) -> Refund:
        """Return the refund. Raises ProtocolError."""
        return _readable(lambda content: self._read(content, key), content)

    def _read(self, content: Json, key: str) -> Refund:
        get = self._get
        word = text(get["refund_status"](content))
        reference = text(get["refund_reference"](content))
        if not word or not (reference or text(get["reference"](content))):
            raise Unreadable("neither status nor reference of a refund")
        formats = self._formats
        name = f"of refund {reference!r}"
        amount = known(formats.read_amount, f"amount {name}", get["amount"](content))
        updated_at = known(formats.read_time, f"time {name}", get["updated_at"](content))
        return Refund(
            refund_reference=reference,
            reference=text(get["reference"](content)),
            amount=amount,
            status=self._words.get(word, RefundStatus.UNKNOWN),
            status_text=word,
            message=text(get["message"](content)),
            utr=text(get["utr"](content)),
            updated_at=updated_at,
            idempotency_key=key,
        )


def excerpt(body: bytes) -> str:
    return body[:BODY_EXCERPT].decode("utf-8", "replace")


def _object(body: bytes) -> Json | None:
    try:
        content = decode(body)
    except UNREADABLE:
        return None
    return content if isinstance(content, dict) else None


def _read(answer: Answer, read: Callable[[Json], T], content: Json) -> T:
    try:
        return read(content)
    except Unreadable as error:
        raise ProtocolError(
            f"{_NO_SENSE}: {error}", status=answer.status, body=excerpt(answer.body)
        ) from None


def _readable(read: Callable[[Json], T], content: Json) -> T:
    try:
        return read(content)
    except Unreadable as error:
        raise ProtocolError(f"{_NO_SENSE}: {error}") from None
