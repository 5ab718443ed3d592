"""The `jData` form: one JSON object, percent-encoded, in one form field.

Every POST of the trading API has its arguments in this form. All values are text, quantities and
prices included.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import parse_qs, quote_plus

import msgspec

from neo_async.errors import ProtocolError
from neo_async.wire.lenient import UNREADABLE

T = TypeVar("T")

FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"

_json = msgspec.json.Encoder()

# Everything that JSON text and trading symbols consist of besides letters and digits. Replacing
# these few is an order of magnitude cheaper than urllib's general quoting, and orders are written
# here.
_ESCAPES = (
    (b"%", b"%25"),
    (b"+", b"%2B"),
    (b" ", b"+"),
    (b'"', b"%22"),
    (b":", b"%3A"),
    (b",", b"%2C"),
    (b"{", b"%7B"),
    (b"}", b"%7D"),
    (b"&", b"%26"),
)
_UNUSUAL = b"\\#;=?/|<>^`[]~!@$'()*"


def encode_form(arguments: object) -> bytes:
    """Return a struct or mapping of text as a `jData=` body."""
    text = _json.encode(arguments)
    if not text.isascii() or text.translate(None, _UNUSUAL) != text:
        return b"jData=" + quote_plus(text).encode()
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return b"jData=" + text


def decode_form(body: bytes, type: type[T]) -> T:  # noqa: A002 - reads as it does in msgspec
    """Return the content of a `jData=` body; JSON null counts as absent (the official SDK sends
    it).

    Raises ProtocolError when there is no `jData`, or it is not an object of that shape.
    """
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    values = fields.get("jData")
    if not values:
        raise ProtocolError("no jData field in the form", body=body.decode("utf-8", "replace"))
    try:
        arguments = msgspec.json.decode(values[0], type=dict[str, object])
        present = {name: value for name, value in arguments.items() if value is not None}
        return msgspec.convert(present, type, strict=False)
    except UNREADABLE as error:
        raise ProtocolError(f"jData is not as it should be: {error}", body=values[0]) from error
