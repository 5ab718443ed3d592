"""What no reader does, whatever the bytes: raise an error of another's, hold the loop, or fill the
memory. `--examples N` tries N inputs for each reader."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import gzipped, spoiled
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.running import (
    MEMORY_AT_LEAST,
    MEMORY_FACTOR,
    allowed_seconds,
    peak_memory,
    run,
)

_PATIENCE = 10
"""Times of what a reader may take: a machine that is busy must not fail this."""
_LARGE = 1 << 20

SLOW = {"journal": 10, "exchange state": 4, "recording": 20, "recording resealed": 20}
"""Inputs for those that write a file for each."""

readers = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@readers
def test_valid_payloads_are_there_and_one_of_them_is_read(reader: Reader) -> None:
    assert any(reader.seeds)
    assert "" in {run(reader, body)[0] for body in reader.seeds}


@readers
def test_spoiled_payloads_are_read_or_refused_in_the_readers_own_words(
    reader: Reader, examples: int
) -> None:
    payloads = reader.seeds

    @settings(
        max_examples=min(examples, SLOW.get(reader.name, examples)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.integers(0, 2**64).map(lambda seed: spoiled(payloads, random.Random(seed)))
        | st.binary(max_size=80)
        | json_values.map(lambda value: json.dumps(value).encode())
    )
    def check(body: bytes) -> None:
        _, took = run(reader, body)
        if reader.on_loop and took >= _PATIENCE * allowed_seconds(body):
            # Once more, without what is made once or collected now and then.
            assert run(reader, body)[1] < _PATIENCE * allowed_seconds(body)

    check()


def _with_long_lists(reader: Reader) -> Iterator[tuple[str, bytes]]:
    """A payload of JSON with each of its lists in turn as long as 1 MiB allows."""
    payload = max(reader.seeds, key=len)
    try:
        content = json.loads(payload)
    except ValueError:
        return
    for where, found in [*_lists({"": content}, "")]:
        kept = [*found]
        for name, item in (("numbers", 1), ("empty objects", {}), ("its rows", kept[:1])):
            part = kept[:1] if name == "its rows" else [item]
            length = len(json.dumps(part)) or 1
            found[:] = part * (_LARGE // length)
            yield f"{where} of {name}", json.dumps(content).encode()
        found[:] = kept


def _lists(content: object, where: str) -> Iterator[tuple[str, list[object]]]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _lists(value, f"{where}/{name}")
    elif isinstance(content, list):
        yield where, content
        for value in content[:1]:
            yield from _lists(value, f"{where}[]")


def _large(reader: Reader) -> dict[str, bytes]:
    """Inputs of 1 MiB, and small ones that become large."""
    payload = max(reader.seeds, key=len) or b"x"
    return dict(_with_long_lists(reader)) | {
        "one payload over and over": (payload * (_LARGE // len(payload) + 1))[:_LARGE],
        "lists in lists": b'{"data":' + b"[" * _LARGE,
        "digits": b'{"data":' + b"1" * _LARGE + b"}",
        "one long text": b'{"data":"' + b"x" * _LARGE + b'"}',
        "numbers": b'{"data":[' + b"1," * (_LARGE // 2) + b"1]}",
        "line ends": b"\n" * _LARGE,
        "commas": b"," * _LARGE,
        "inflated": gzipped(b"x" * (32 * _LARGE)),
        "zeros": b"\0" * _LARGE,
    }


@pytest.mark.parametrize(
    "reader", [reader for reader in READERS.values() if reader.on_loop], ids=lambda one: one.name
)
def test_large_inputs_hold_the_loop_and_the_memory_within_bounds(reader: Reader) -> None:
    for name, body in _large(reader).items():
        took = min(run(reader, body)[1] for _ in range(2))
        assert took < _PATIENCE * allowed_seconds(body), name
        assert peak_memory(reader, body) < MEMORY_AT_LEAST + MEMORY_FACTOR * len(body), name
