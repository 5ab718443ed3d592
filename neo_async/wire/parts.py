"""Split a long report into short ones, to be decoded one after another."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from neo_async.model.answer import Answer

SHORT = 200_000
"""Largest report that is decoded in one piece, in bytes: that takes less than two milliseconds."""


class _Rows(msgspec.Struct):
    data: list[msgspec.Raw]
    stat: str = ""
    code: int | None = msgspec.field(name="stCode", default=None)
    status: object = None
    fault: object = None
    error: object = None


_DECODER = msgspec.json.Decoder(_Rows)


def in_parts(answer: Answer, rows: int) -> Iterator[Answer] | None:
    """Return the answer as several of the same kind with at most so many rows each; None when it is
    short, or anything but a plain list of rows below `data`."""
    if len(answer.body) <= SHORT or answer.status != 200:
        return None
    try:
        content = _DECODER.decode(answer.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if content.stat.lower() != "ok" or content.code not in (None, 200):
        return None
    if (content.status, content.fault, content.error) != (None, None, None):
        return None
    return (
        Answer(answer.status, answer.headers, _report(content.data[start : start + rows]))
        for start in range(0, len(content.data), rows)
    )


def _report(rows: list[msgspec.Raw]) -> bytes:
    return b'{"stat":"Ok","stCode":200,"data":[' + b",".join(map(bytes, rows)) + b"]}"
