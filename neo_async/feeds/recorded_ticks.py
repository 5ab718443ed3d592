"""Ticks of a recording, read back without an exchange."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from neo_async.base import logs
from neo_async.errors import ProtocolError
from neo_async.model.ticks import Tick
from neo_async.wire.feed import FeedDecoder, read_control
from neo_async.wire.recording import read_recording

log = logging.getLogger(logs.FEEDS)


def recorded_ticks(path: str | os.PathLike[str]) -> Iterator[Tick]:
    """Yield the ticks of a recording in their order, of every kind and level, with the times at
    which they were received; made by `feed.record(path)`.

        for tick in recorded_ticks("2026-11-23.feed"): ...

    Reads one block at a time, and blocks while it does: in a program with a feed or orders, iterate
    in a thread. Where the file is damaged it ends, and a warning names the byte. Raises UsageError
    when there is no such file, or it is not a recording of a known version.
    """
    recording = read_recording(path)
    decoder = FeedDecoder()
    for frame in recording:
        if isinstance(frame.content, bytes):
            yield from decoder.decode(frame.content, frame.received_ns)
        elif frame.content is not None:
            try:
                control = read_control(frame.content)
            except ProtocolError:
                continue
            if control.exchanges:
                decoder.set_exchanges(control)
            decoder.set_symbols(control.symbols)
    if recording.damage:
        log.warning("the recording %s is damaged: %s", recording.path, recording.damage)
