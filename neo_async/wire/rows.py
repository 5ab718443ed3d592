"""Decode reports into lists of structs.

A report as documented is decoded in a single pass, numbers inside strings included. Only when that
fails is it decoded again, slowly: spellings of "no value" are removed from number fields, and
numbers are allowed where text is expected. A value that still does not fit is unknown: the field
has its default, its name is in the row's `missing`, and `odd` has the text that was received. A
code that is not in its enum is kept as it was sent (see BrokerCode). A row is never dropped for an
unreadable value: a book without it would mean that the order does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar, get_args, get_origin

import msgspec

from neo_async.errors import ProtocolError
from neo_async.model.answer import Answer
from neo_async.model.enums import BrokerCode
from neo_async.model.numbers import Number
from neo_async.wire.answers import failure, is_no_data, is_success, shown
from neo_async.wire.lenient import UNREADABLE as UNREADABLE
from neo_async.wire.lenient import read_json

Row = TypeVar("Row", bound=msgspec.Struct)

_ABSENT = frozenset({"", "NA", "--", "-", "- ", "XX", "null"})
"""The broker's spellings of "no value" inside a string."""

_ABSENT_FOLDED = frozenset(text.strip().lower() for text in _ABSENT)

_LARGEST_EXPONENT = 30
"""Largest decimal exponent of an exact amount; no account has that many rupees."""

_OWN = ("missing", "odd")
"""Fields of a row about its decoding. They are not on the wire."""


class _Envelope(msgspec.Struct, Generic[Row]):
    """The object around the rows of a successful report, with the fields that mark a failed one."""

    data: list[Row]
    stat: str = ""
    code: int | None = msgspec.field(name="stCode", default=None)
    status: object = None
    fault: object = None
    error: object = None

    @property
    def is_plain(self) -> bool:
        """Whether it reports success in the usual way."""
        return (
            (self.stat in ("Ok", "ok") or (not self.stat and self.code in (None, 200)))
            and self.status is None
            and self.fault is None
            and self.error is None
        )


_ODD_ROWS: Final = 1_000
_SHORTEST_ROW: Final = 200
"""Bytes of the shortest row; rows of orders, trades, positions, holdings and contracts are
longer."""


class _Kind(Enum):
    TEXT = "text"
    INTEGER = "a whole number"
    NUMBER = "a number"
    CODE = "a code"
    OTHER = "of a known type"


class _Field(msgspec.Struct, frozen=True):
    name: str
    wire: str
    type: Any
    kind: _Kind
    required: bool
    is_expected: bool


_CodeField: TypeAlias = tuple[str, str, type[BrokerCode]]
"""Name, name on the wire and enum of a field that holds a code."""


class RowReader(Generic[Row]):
    """Decodes one kind of report. Create it once: the decoder is compiled here."""

    def __init__(self, row: type[Row], *, expected: frozenset[str] = frozenset()) -> None:
        """Name in `expected` the fields for which null means missing, because their default would
        be wrong. (A dash or an empty text is the broker's spelling of nothing, or 0.)"""
        self._row = row
        fields = msgspec.structs.fields(row)
        self._fields = [
            _Field(
                field.name,
                field.encode_name,
                field.type,
                _kind_of(field.type),
                field.required,
                field.name in expected,
            )
            for field in fields
            if field.name not in _OWN
        ]
        self._own = {field.name: field.encode_name for field in fields if field.name in _OWN}
        self._numbers = [
            (field.wire, field.is_expected)
            for field in self._fields
            if field.kind in (_Kind.INTEGER, _Kind.NUMBER)
        ]
        self._codes = [
            (field.name, field.wire, field.type)
            for field in self._fields
            if field.kind is _Kind.CODE
        ]
        self._decoder = msgspec.json.Decoder(_Envelope[row], strict=False)  # type: ignore[valid-type]

    def read(self, answer: Answer) -> list[Row]:
        """Return the rows of a report; an empty book is an empty list.

        Raises the exception that any other answer stands for.
        """
        if 200 <= answer.status < 300:
            try:
                envelope = self._decoder.decode(answer.body)
            except UNREADABLE:
                pass
            else:
                if envelope.is_plain:
                    return envelope.data
        rows = _unwrap(answer)
        check_row_count(rows, answer)
        return [self._read_row(row, number) for number, row in enumerate(rows, start=1)]

    def _read_row(self, row: object, number: int) -> Row:
        if not isinstance(row, dict):
            values, missing, _ = self._values({})
            return self._made(values, missing, [f"row {number} is no object: {shown(row)}"])
        # Nearly always a number is absent or a code is not in its enum, and nothing else is odd.
        # That alone is five times faster than a look at every field, and a long report must not
        # hold up the event loop.
        for name, is_expected in self._numbers:
            value = row.get(name)
            if value is None or (isinstance(value, str) and value in _ABSENT):
                if value is None and is_expected and name in row:
                    return self._read_odd_row(row)
                row.pop(name, None)
        codes = {}
        for name, wire, vocabulary in self._codes:
            text = row.get(wire)
            if isinstance(text, str) and text not in vocabulary._value2member_map_:
                codes[name] = vocabulary.read(text)
        plain = _with_members(row, self._codes, codes) if codes else row
        try:
            converted = msgspec.convert(plain, self._row, strict=False)
        except UNREADABLE:
            return self._read_odd_row(row)
        return msgspec.structs.replace(converted, **codes) if codes else converted

    def _read_odd_row(self, row: dict[str, object]) -> Row:
        values, absent, odd = self._values(row)
        missing = {
            field.name
            for field in self._fields
            if field.name in absent
            and (field.required or field.name in odd or _is_null(row, field))
        }
        return self._made(values, missing, list(odd.values()))

    def read_partial(self, row: dict[str, object]) -> Row:
        """Return a row that was received alone: every field without a value is in its `missing`."""
        values, missing, odd = self._values(row)
        return self._made(values, missing, list(odd.values()))

    def _values(self, row: dict[str, object]) -> tuple[dict[str, object], set[str], dict[str, str]]:
        """Return the values of a row by wire name, in a form that fits their fields; the names of
        the fields without one; and descriptions of the unreadable values among them."""
        values: dict[str, object] = {}
        missing: set[str] = set()
        odd: dict[str, str] = {}
        for field in self._fields:
            given = row.get(field.wire)
            value = _tidy(given, field.kind)
            if field.kind is _Kind.CODE:
                if not isinstance(value, str):
                    missing.add(field.name)
                if value is not None and not isinstance(value, str):
                    odd[field.name] = f"{field.wire}={shown(given)} is not {field.kind.value}"
                values[field.wire] = field.type.read(value if isinstance(value, str) else "")
                continue
            if value is not None and _fits(value, field):
                values[field.wire] = value
                continue
            missing.add(field.name)
            if value is not None:
                odd[field.name] = f"{field.wire}={shown(given)} is not {field.kind.value}"
            if field.required:
                values[field.wire] = "" if field.kind is _Kind.TEXT else 0
        return values, missing, odd

    def _made(self, values: dict[str, object], missing: set[str], odd: list[str]) -> Row:
        own: dict[str, object] = {"missing": sorted(missing), "odd": odd}
        for name, wire in self._own.items():
            values[wire] = own[name]
        codes = {name: values[wire] for name, wire, _ in self._codes}
        try:
            row = msgspec.convert(
                _with_members(values, self._codes, codes), self._row, strict=False
            )
        except UNREADABLE as error:  # none is known
            raise ProtocolError(f"a row cannot be read: {error}") from error
        return msgspec.structs.replace(row, **codes) if codes else row


def read_object(answer: Answer) -> dict[str, object]:
    """Return a report that is one object at the root, or below `data`."""
    content = _parse(answer)
    if not isinstance(content, dict) or not is_success(content):
        raise failure(answer)
    wrapped = content.get("data")
    if isinstance(wrapped, dict):
        content = wrapped
        if not is_success(content):
            raise failure(Answer(answer.status, answer.headers, msgspec.json.encode(content)))
    return content


def check_row_count(rows: Sequence[object], answer: Answer) -> None:
    """Raise ProtocolError when an answer has more rows than one of its size can have.

    Rows that are decoded field by field take some 20 µs each, whatever their length: very short
    ones, which a broker's answer does not have, would block the event loop for seconds.
    """
    most = max(_ODD_ROWS, len(answer.body) // _SHORTEST_ROW)
    if len(rows) > most:
        raise ProtocolError(
            f"an answer of {len(answer.body)} bytes has {len(rows)} rows that have to be read one "
            f"by one: must be {most} at most"
        )


def number(content: dict[str, object], name: str) -> float | None:
    """Return a number of an object; None when it is missing or spelt as absent.

    Raises ProtocolError for anything else.
    """
    value = _tidy(content.get(name), _Kind.NUMBER)
    if value is None:
        return None
    try:
        return msgspec.convert(value, Number, strict=False)
    except UNREADABLE as error:
        raise ProtocolError(f"{name}={shown(content.get(name))} is not a number") from error


def _with_members(
    row: dict[str, object], fields: list[_CodeField], codes: Mapping[str, object]
) -> dict[str, object]:
    """Return a row that the decoder accepts: with any member in place of each of those codes."""
    members = {wire: next(iter(kind)) for name, wire, kind in fields if name in codes}
    return {**row, **members}


def _unwrap(answer: Answer) -> list[Any]:
    """Return the raw rows from any number of nested envelopes. An envelope without `data` is never
    an empty book: an order would seem not to exist."""
    content = _parse(answer)
    if content is None:
        raise failure(answer)
    while isinstance(content, dict):
        if is_no_data(content):
            return []
        if "data" not in content or not is_success(content):
            body = msgspec.json.encode(content)
            raise failure(Answer(answer.status, answer.headers, body), lacking="data")
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
        return read_json(answer.body)
    except UNREADABLE as error:
        raise failure(answer) from error


def _is_null(row: dict[str, object], field: _Field) -> bool:
    return field.is_expected and field.wire in row and row[field.wire] is None


def _kind_of(type_: Any) -> _Kind:
    types = {_bare(part) for part in get_args(type_) if get_origin(type_) is not Annotated}
    types = types - {type(None)} or {_bare(type_)}
    if types == {str}:
        return _Kind.TEXT
    if any(isinstance(each, type) and issubclass(each, BrokerCode) for each in types):
        return _Kind.CODE
    if types == {int}:
        return _Kind.INTEGER
    return _Kind.NUMBER if types in ({float}, {Decimal}) else _Kind.OTHER


def _bare(type_: Any) -> Any:
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_


def _tidy(value: object, kind: _Kind) -> object:
    """Return the value in a form for the field's kind; None when it is a spelling of "no value"."""
    if kind in (_Kind.TEXT, _Kind.CODE):
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
    except UNREADABLE:
        return False
    except ArithmeticError:  # the decimal context around us traps what is no number
        return False
    if isinstance(converted, Decimal):
        return converted.is_finite() and converted.adjusted() <= _LARGEST_EXPONENT
    return True
