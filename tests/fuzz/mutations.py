"""Spoils valid payloads: what a broken, hostile or merely odd server would send."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import Final

_LONG: Final = b"1" * 5000
_TOKENS: Final = (
    b"null", b"true", b"-1", b"0", b"1e999", b"-1e-999", b"NaN", b"Infinity", b"[]", b"{}", b'""',
    b'"\\ud800"', b'"\\u0000"', b'"\x1b[2J"', b"99999999999999999999", b"9" * 400, _LONG,
    b"[" * 2000, b'{"a":' * 2000, b'"31-FEB-2026"', b'"9999-12-31T23:59:59"', b'"0001-01-01"',
    b"1e99999999999999999999", b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b",", b'"', b"\n", b"\r\n",
    b"\r\n\r\n", b"0\r\n\r\n", b"ffffffffff\r\n", b"\x1f\x8b\x08", b"=", b"|", b":", b"-", b".",
)  # fmt: skip
_LARGEST: Final = 1 << 20
"""Bytes; no input grows beyond it."""


def spoiled(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the payloads with one to four things wrong, or bytes that never were a payload."""
    if not seeds or rng.random() < 0.02:
        return rng.randbytes(rng.randrange(200))
    body = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_WAYS)(body, rng)
        if len(body) > _LARGEST:
            del body[_LARGEST:]
    return bytes(body)


def _flip(body: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        if body:
            body[rng.randrange(len(body))] = rng.randrange(256)


def _cut(body: bytearray, rng: random.Random) -> None:
    del body[rng.randrange(len(body) + 1) :]


def _drop(body: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(body) + 1)
    del body[start : start + rng.randint(1, 30)]


def _insert(body: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(body) + 1)
    body[at:at] = rng.choice(_TOKENS)


def _replace_value(body: bytearray, rng: random.Random) -> None:
    """Put something else in the place of a JSON value or a cell."""
    at = rng.randrange(len(body) + 1)
    start = max(body.find(b":", at), body.find(b",", at)) + 1
    ends = [end for mark in b',}]\n"' if (end := body.find(mark, start + 1)) > 0]
    if start and ends:
        body[start : min(ends) + (body[min(ends)] == 34)] = rng.choice(_TOKENS)


def _repeat(body: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(body) + 1)
    part = body[start : start + rng.randint(1, 200)]
    body[start:start] = part * rng.randint(1, 20)


def _number(body: bytearray, rng: random.Random) -> None:
    """Overwrite bytes by the edges of integers, as binary formats have them."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1, rng.getrandbits(8 * size)))
    at = rng.randrange(len(body) + 1)
    body[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


_WAYS: Final[tuple[Callable[[bytearray, random.Random], None], ...]] = (
    _flip, _cut, _drop, _insert, _replace_value, _replace_value, _repeat, _number,
)  # fmt: skip


def gzipped(body: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(body) + packer.flush()
