"""One input into one reader, and what came of it: the error, the time, the memory.

Times are those of the thread, so that other work of the machine does not count.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from time import thread_time

from tests.fuzz.readers import Reader

SECONDS_PER_MIB = 0.010
"""The time for which a reader may hold the loop, for each MiB of input."""
SECONDS_AT_LEAST = 0.010
"""What the smallest input may take: less could not be told from the machine's own noise."""
MEMORY_FACTOR = 100
MEMORY_AT_LEAST = 4 << 20


class Fault(AssertionError):
    """A reader did what none may do."""


def run(reader: Reader, body: bytes) -> tuple[str, float]:
    """Read the input; return the name of the error, or nothing, and the seconds of the longest
    step. Raises Fault when the error is not one that the reader documents."""
    longest, began = 0.0, thread_time()
    try:
        reading = reader.read(body)
        if isinstance(reading, Iterator):
            longest, began = thread_time() - began, thread_time()
            for _ in reading:
                longest, began = max(longest, thread_time() - began), thread_time()
    except reader.errors as error:
        outcome = type(error).__name__
        str(error).encode()  # it can be printed
    except (Exception, RecursionError) as error:
        raise Fault(f"{reader.name}: {type(error).__name__} for {body[:300]!r}") from error
    else:
        outcome = ""
    return outcome, max(longest, thread_time() - began)


def allowed_seconds(body: bytes) -> float:
    return SECONDS_AT_LEAST + SECONDS_PER_MIB * len(body) / (1 << 20)


def peak_memory(reader: Reader, body: bytes) -> int:
    """Bytes at the most while the input is read."""
    tracemalloc.start()
    try:
        run(reader, body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
