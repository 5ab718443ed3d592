"""Decode JSON as brokers send it, malformed parts included.

`decode` tries the fast parser first. What that refuses is parsed again by the standard library,
which accepts a byte order mark, `NaN` and `Infinity`, control characters inside texts, and numbers
of any size; bytes that are not UTF-8 and halves of surrogate pairs become replacement characters.
One odd character then costs the text that contains it, not the whole report.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

UNREADABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""Errors of decoding bytes that are not JSON, or not of the expected shape."""

_LONGEST_NUMBER = 400
"""Longest number in digits; a longer one stays text, which no reader accepts as a number."""


def read_json(body: bytes | str) -> Any:
    """Return the content of a JSON text. Raises one of UNREADABLE."""
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        return _read_odd(body)


def decode(decoder: msgspec.json.Decoder[T], body: bytes | str) -> T:
    """Decode a JSON text into the decoder's type. Raises one of UNREADABLE: msgspec.ValidationError
    for JSON of another shape."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except UNREADABLE:
        read: T = msgspec.convert(_read_odd(body), decoder.type, strict=decoder.strict)
        return read


def _read_odd(body: bytes | str) -> Any:
    if isinstance(body, bytes | bytearray | memoryview):
        body = bytes(body)
        body = body.decode(json.detect_encoding(body), "replace")
    content = json.loads(
        body.removeprefix("\ufeff"), strict=False, parse_int=_whole, parse_float=_number
    )
    return _without_surrogates(content) if "\\u" in body or not body.isascii() else content


def _whole(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_NUMBER else text


def _number(text: str) -> float | str:
    return float(text) if len(text) <= _LONGEST_NUMBER else text


def _without_surrogates(content: Any) -> Any:
    """Return the content with halves of surrogate pairs, which cannot be encoded, replaced."""
    if isinstance(content, str):
        if content.isascii():
            return content
        return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(content, list):
        return [_without_surrogates(item) for item in content]
    if isinstance(content, dict):
        return {
            _without_surrogates(name): _without_surrogates(item) for name, item in content.items()
        }
    return content
