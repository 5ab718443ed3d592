"""Subscriptions of one connection, without any: frames, budget, names."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from neo_async.errors import UsageError
from neo_async.feeds.subscriptions import Subscriptions, checked_names, stream_of
from neo_async.model.enums import Level
from neo_async.wire.feed import Stream

NAMES = [f"nse_cm|{number}" for number in range(1, 8)]
name_lists = st.lists(st.sampled_from(NAMES), max_size=5, unique=True)
streams = st.sampled_from(list(Stream))


class Server:
    """The subscriptions of one connection as the frames leave them at the server."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}

    def take(self, frame: str) -> None:
        verb, stream, names = read(frame)
        held = self.names.setdefault(stream, set())
        if verb == "subscribe":
            assert held.isdisjoint(names), "subscribed again"
            held.update(names)
        else:
            assert held.issuperset(names), "unsubscribed without having been subscribed"
            held.difference_update(names)


def read(frame: str) -> tuple[str, str, list[str]]:
    """Verb, stream and names of a frame."""
    event: Any = json.loads(frame)
    for verb in ("unsubscribe", "subscribe"):
        if event["event"].startswith(verb):
            names = event.get("inputtoken", "")
            return verb, event["event"].removeprefix(verb), names.split(",") if names else [""]
    raise AssertionError(frame)


class Syncing(RuleBasedStateMachine):
    """Calls of the program, and frames of which any number is sent before the next call."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions = Subscriptions(budget=12)
        self.server = Server()
        self.desired: dict[Stream, set[str]] = {stream: set() for stream in Stream}

    def names(self, stream: Stream, names: list[str]) -> list[str]:
        return [""] if stream is Stream.EXCHANGE else names

    @rule(stream=streams, names=name_lists)
    def add(self, stream: Stream, names: list[str]) -> None:
        names = self.names(stream, names)
        wanted = self.desired[stream] | set(names)
        others = sum(
            len(held)
            for each, held in self.desired.items()
            if each not in (stream, Stream.EXCHANGE)
        )
        if stream is not Stream.EXCHANGE and others + len(wanted) > 12:
            with pytest.raises(UsageError, match="the broker allows 12"):
                self.subscriptions.add(stream, names)
            return
        new = self.subscriptions.add(stream, names)
        assert set(new) == wanted - self.desired[stream]
        self.desired[stream] = wanted

    @rule(stream=streams, names=name_lists)
    def remove(self, stream: Stream, names: list[str]) -> None:
        names = self.names(stream, names)
        unused = self.subscriptions.remove(stream, names)
        self.desired[stream] -= set(names)
        used = set().union(*self.desired.values())
        assert set(unused) == set(names) - used

    @rule(count=st.integers(0, 12))
    def send_some(self, count: int) -> None:
        for frame in islice(self.subscriptions.frames(0.0), count):
            self.server.take(frame)

    @rule()
    def send_all(self) -> None:
        for frame in self.subscriptions.frames(0.0):
            self.server.take(frame)
        for stream, names in self.desired.items():
            assert self.server.names.get(stream.value, set()) == names
        assert list(self.subscriptions.frames(0.0)) == [], "a second sync has nothing to send"

    @rule()
    def reconnect(self) -> None:
        self.server = Server()
        self.subscriptions.reset_sent()

    @precondition(lambda self: any(self.desired.values()))
    @rule(stream=streams, names=name_lists)
    def change_while_a_frame_is_sent(self, stream: Stream, names: list[str]) -> None:
        """As when another task subscribes while a frame waits for room in the socket."""
        frames = self.subscriptions.frames(0.0)
        if (first := next(frames, None)) is not None:
            self.server.take(first)
        self.remove(stream, names)
        for frame in frames:
            self.server.take(frame)
        self.send_all()

    @invariant()
    def counts_what_is_desired(self) -> None:
        held = self.desired
        assert self.subscriptions.count == sum(
            len(names) for stream, names in held.items() if stream is not Stream.EXCHANGE
        )
        assert self.subscriptions.wants_status == bool(held[Stream.EXCHANGE])
        priced = (Stream.LITE, Stream.SCRIP, Stream.DEPTH, Stream.FULL_DEPTH)
        for name in NAMES:
            assert self.subscriptions.has_prices(name) == any(name in held[each] for each in priced)
            assert self.subscriptions.is_used(name) == any(name in each for each in held.values())


TestSyncing = Syncing.TestCase
TestSyncing.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(st.lists(st.tuples(streams, name_lists), max_size=8))
def test_a_sync_takes_at_most_two_frames_a_stream_in_the_order_of_the_calls(
    calls: list[tuple[Stream, list[str]]],
) -> None:
    held = Subscriptions()
    expected: dict[str, dict[str, None]] = {}
    for stream, names in calls:
        names = [""] if stream is Stream.EXCHANGE else names
        held.add(stream, names)
        if names:
            expected.setdefault(stream.value, {}).update(dict.fromkeys(names))
    frames = [read(frame) for frame in held.frames(0.0)]
    assert {stream: names for _, stream, names in frames} == {
        stream: list(names) for stream, names in expected.items()
    }
    assert len(frames) == len(expected)
    assert {verb for verb, _, _ in frames} <= {"subscribe"}


@given(st.lists(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), max_size=10))
def test_snapshots_keep_the_newest_names_up_to_the_budget(calls: list[list[str]]) -> None:
    held = Subscriptions(budget=3)
    held.add(Stream.SCRIP, NAMES[:1])
    newest: list[str] = []
    for names in calls:
        newest = [name for name in newest if name not in names] + names
        kept = newest[-max(3, len(names)) :]
        forgotten = set(newest) - set(kept)
        assert set(held.add_snapshots(names)) == forgotten - {NAMES[0]}
        newest = kept
        assert all(held.is_used(name) for name in newest)
    for name in NAMES[1:]:
        assert held.is_used(name) == (name in newest)
    assert held.count == 1


def test_a_name_that_a_snapshot_needs_is_still_used_when_it_is_unsubscribed() -> None:
    held = Subscriptions()
    held.add(Stream.LITE, ["nse_cm|1", "nse_cm|2"])
    held.add_snapshots(["nse_cm|1"])
    assert held.remove(Stream.LITE, ["nse_cm|1", "nse_cm|2"]) == ["nse_cm|2"]


def test_segments_are_those_of_instruments_and_indices() -> None:
    held = Subscriptions()
    held.add(Stream.SCRIP, ["nse_cm|1", "nse_cm|2"])
    held.add(Stream.INDEX, ["bse_cm|SENSEX"])
    held.add(Stream.EXCHANGE, [""])
    assert held.segments == {"nse_cm", "bse_cm"}


@pytest.mark.parametrize("level", list(Level))
def test_every_level_has_a_stream(level: Level) -> None:
    assert stream_of(level).name == level.name


def test_a_level_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"level=7: must be one of .*\(lite\)"):
        stream_of(7)  # type: ignore[arg-type]
    for level in (True, "deep", None):
        with pytest.raises(UsageError, match="must be one of"):
            stream_of(level)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", list(Level))
def test_a_level_may_be_text_or_a_number(level: Level) -> None:
    for spelling in (level.name, level.name.lower(), int(level)):
        assert stream_of(spelling) is stream_of(level)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "nse_cm", "nse_cm|", "nse_cm|01", "nse_cm|1,2", "x|1"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="instrument"):
        checked_names(Stream.SCRIP, ["nse_cm|1", name])


@given(st.lists(st.sampled_from(NAMES), max_size=10))
def test_repeated_names_count_once_in_their_first_place(names: list[str]) -> None:
    assert checked_names(Stream.LITE, names) == sorted(set(names), key=names.index)


def test_one_text_is_no_list_of_names() -> None:
    with pytest.raises(UsageError, match="a list of instruments, not one"):
        checked_names(Stream.LITE, "nse_cm|1")


def test_an_acknowledgement_counts_for_the_subscription_that_was_sent_first() -> None:
    held = Subscriptions()
    held.add(Stream.DEPTH, ["nse_cm|1", "nse_cm|2"])
    list(held.frames(1.0))
    held.add(Stream.LITE, ["nse_cm|1"])
    held.add(Stream.EXCHANGE, [""])
    list(held.frames(2.0))
    depth = [(Stream.DEPTH, "nse_cm|1"), (Stream.DEPTH, "nse_cm|2")]
    assert held.unacknowledged(1.0) == depth
    assert set(held.unacknowledged(2.0)) == {*depth, (Stream.LITE, "nse_cm|1")}
    held.acknowledge(["nse_cm|1", "nse_cm|77"])
    assert set(held.unacknowledged(2.0)) == {depth[1], (Stream.LITE, "nse_cm|1")}
    held.remove(Stream.DEPTH, ["nse_cm|2"])
    held.acknowledge(["nse_cm|1"])
    assert held.unacknowledged(9.0) == []


def test_a_new_connection_waits_for_every_acknowledgement_anew() -> None:
    held = Subscriptions()
    held.add(Stream.SCRIP, ["nse_cm|1"])
    list(held.frames(1.0))
    held.acknowledge(["nse_cm|1"])
    held.reset_sent()
    assert held.unacknowledged(9.0) == []
    list(held.frames(5.0))
    assert held.unacknowledged(4.0) == []
    assert held.unacknowledged(5.0) == [(Stream.SCRIP, "nse_cm|1")]
