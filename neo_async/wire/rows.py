"""Reports as rows: the one way from an answer's bytes to a list of structs.

A report that keeps to the documents is decoded in a single pass, numbers inside strings included.
Only when that fails is it read again, slowly: spellings of "no value" are taken out of number
fields, numbers are allowed where text is expected, and what still does not fit is named.
"""

from __future__ import annotations

import math
import reprlib
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, TypeVar, get_args

import msgspec

from neo_async.errors import ProtocolError
from neo_async.model.answer import Answer
from neo_async.wire.answers import NO_DATA, failure

Row = TypeVar("Row", bound=msgspec.Struct)

_ABSENT = frozenset({"", "NA", "--", "-", "- ", "XX", "null"})
"""How the broker writes "no value" inside a string."""

_ABSENT_FOLDED = frozenset(text.strip().lower() for text in _ABSENT)

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding raises when the bytes are no JSON at all."""


class _Envelope(msgspec.Struct, Generic[Row]):
    """What surrounds the rows of a report that went well."""

    data: list[Row]
    stat: str = ""
    code: int | None = msgspec.field(name="stCode", default=None)


class _Kind(Enum):
    TEXT = "text"
    INTEGER = "a whole number"
    NUMBER = "a number"
    OTHER = "of a known type"


class _Field(msgspec.Struct, frozen=True):
    name: str
    wire: str
    type: Any
    kind: _Kind
    optional: bool


class RowReader(Generic[Row]):
    """Reads one kind of report. Built once: the decoder is compiled here."""

    def __init__(self, row: type[Row], *, optional: frozenset[str] = frozenset()) -> None:
        """`optional` names wire fields that count as missing when they cannot be read."""
        self._row = row
        self._fields = [
            _Field(
                field.name,
                field.encode_name,
                field.type,
                _kind_of(field.type),
                field.encode_name in optional,
            )
            for field in msgspec.structs.fields(row)
        ]
        self._numbers = [
            field.wire for field in self._fields if field.kind in (_Kind.INTEGER, _Kind.NUMBER)
        ]
        self._decoder = msgspec.json.Decoder(_Envelope[row], strict=False)  # type: ignore[valid-type]

    def read(self, answer: Answer) -> list[Row]:
        """The rows of a report; an empty book is an empty list.

        Raises what `failure` makes of an answer that is no success, and ProtocolError that names
        row, field and value when a row cannot be read.
        """
        try:
            envelope = self._decoder.decode(answer.body)
        except msgspec.ValidationError:
            return self._read_slowly(answer)
        except UNREADABLE as error:
            raise failure(answer) from error
        if not 200 <= answer.status < 300 or not _is_success(envelope.stat, envelope.code):
            raise failure(answer)
        return envelope.data

    def _read_slowly(self, answer: Answer) -> list[Row]:
        return [
            self._read_row(row, number, answer.status)
            for number, row in enumerate(_unwrap(answer), start=1)
        ]

    def _read_row(self, row: object, number: int, status: int) -> Row:
        if not isinstance(row, dict):
            raise ProtocolError(f"row {number} is no object: {reprlib.repr(row)}", status=status)
        # Nearly always a number is absent and nothing else is odd. That alone is five times faster
        # than a look at every field, and a long report must not hold up the event loop.
        for name in self._numbers:
            value = row.get(name)
            if value is None or (isinstance(value, str) and value in _ABSENT):
                row.pop(name, None)
        try:
            return msgspec.convert(row, self._row, strict=False)
        except msgspec.ValidationError:
            return self._read_odd_row(row, number, status)

    def read_partial(self, row: dict[str, object]) -> tuple[Row, frozenset[str]]:
        """A row that came by itself, and the names of the fields for which it has no value.

        Raises ProtocolError when a field that is not optional is missing or cannot be read.
        """
        values = self._values(row)
        missing = frozenset(field.name for field in self._fields if field.wire not in values)
        try:
            return msgspec.convert(values, self._row, strict=False), missing
        except msgspec.ValidationError as error:
            raise ProtocolError(self._explain(values) or str(error)) from error

    def _values(self, row: dict[str, object]) -> dict[str, object]:
        """What the row has, by wire name, in a form that its fields' kinds can take."""
        values: dict[str, object] = {}
        for field in self._fields:
            value = _tidy(row.get(field.wire), field.kind)
            if value is not None and (not field.optional or _fits(value, field)):
                values[field.wire] = value
        return values

    def _read_odd_row(self, row: dict[str, object], number: int, status: int) -> Row:
        values = self._values(row)
        try:
            return msgspec.convert(values, self._row, strict=False)
        except msgspec.ValidationError as error:
            problem = self._explain(values) or str(error)
            raise ProtocolError(f"row {number}: {problem}", status=status) from error

    def _explain(self, values: dict[str, object]) -> str:
        """Name the first field that does not fit; empty when each fits by itself."""
        for field in self._fields:
            value = values.get(field.wire)
            if value is not None and not _fits(value, field):
                return f"{field.wire}={reprlib.repr(value)} is not {field.kind.value}"
        return ""


def read_object(answer: Answer) -> dict[str, object]:
    """A report that is one object at the root (or, as some wrap it, below `data`)."""
    content = _parse(answer)
    wrapped = content.get("data") if isinstance(content, dict) else None
    if isinstance(wrapped, dict):
        content = wrapped
    if not isinstance(content, dict) or not _is_success(content.get("stat"), content.get("stCode")):
        raise failure(answer)
    return content


def number(content: dict[str, object], name: str) -> float | None:
    """A number of an object; None when it is missing or spelt as absent.

    Raises ProtocolError when there is something else.
    """
    value = _tidy(content.get(name), _Kind.NUMBER)
    if value is None:
        return None
    try:
        return msgspec.convert(value, float, strict=False)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{name}={reprlib.repr(value)} is not a number") from error


def _unwrap(answer: Answer) -> list[Any]:
    """The raw rows, out of as many envelopes as there are. An envelope without `data` is never
    an empty book: an order would seem not to exist."""
    content = _parse(answer)
    if content is None:
        raise failure(answer)
    while isinstance(content, dict):
        if _code(content.get("stCode")) == NO_DATA:
            return []
        if "data" not in content or not _is_success(content.get("stat"), content.get("stCode")):
            body = msgspec.json.encode(content)
            raise failure(Answer(answer.status, answer.headers, body))
        content = content["data"]
    if content is None:
        return []
    if not isinstance(content, list):
        raise failure(answer)
    return content


def _parse(answer: Answer) -> Any:
    if not 200 <= answer.status < 300:
        raise failure(answer)
    try:
        return msgspec.json.decode(answer.body)
    except UNREADABLE as error:
        raise failure(answer) from error


def _is_success(stat: object, code: object) -> bool:
    """`stat` decides, in any casing; where there is none (holdings), the code does."""
    if stat:
        return isinstance(stat, str) and stat.strip().lower() == "ok"
    return _code(code) in (None, 200, 1000)


def _code(code: object) -> object:
    return int(code) if isinstance(code, str) and code.strip().isdecimal() else code


def _kind_of(type_: Any) -> _Kind:
    types = set(get_args(type_)) - {type(None)} or {type_}
    if types == {str}:
        return _Kind.TEXT
    if types == {int}:
        return _Kind.INTEGER
    return _Kind.NUMBER if types in ({float}, {Decimal}) else _Kind.OTHER


def _tidy(value: object, kind: _Kind) -> object:
    """The value as the field's kind wants it, or None when it says that there is no value."""
    if kind is _Kind.TEXT:
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value) if isinstance(value, int | float) else value
    if kind is not _Kind.OTHER and isinstance(value, str):
        value = value.strip()
        return None if value.lower() in _ABSENT_FOLDED else value
    return value


def _fits(value: object, field: _Field) -> bool:
    try:
        converted = msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError:
        return False
    if isinstance(converted, Decimal):
        return converted.is_finite()
    return not isinstance(converted, float) or math.isfinite(converted)
