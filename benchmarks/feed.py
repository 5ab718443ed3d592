"""Market feed: ticks a second, beside orders, in memory, over lost connections.

The server has one core and a process of its own, the peer whose turn it is has another; the
peers' rounds alternate. README.md beside this file explains the figures.
"""

from __future__ import annotations

import argparse
import statistics
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

import msgspec

from benchmarks.feed_peers import FeedSample
from benchmarks.feed_scenes import Latency, Memory, Reconnects
from benchmarks.feed_server import Plan
from benchmarks.harness import (
    Benchmark,
    Figure,
    Report,
    Table,
    Wanted,
    alternate,
    at_least,
    at_most,
    number,
    summarise,
)
from benchmarks.workers import Cores, Worker, server_cell

PARTS = ("lite", "depth", "columns", "latency", "memory", "reconnect")
PER_FRAME = 50
SUBSCRIBED = 1000
"""Instruments of the throughput measures."""
ALL = 3000
"""Instruments that one connection may have."""
TRIAL_FRAMES = 20
"""Frames of the first round, whose pace sets how many frames fill a round."""

OURS = ("neo_async", "neo_async_block", "neo_async_batches", "neo_async_callback")
LITE_PEERS = ("bare_loop", "bare_structs", *OURS, "kotakneoapi")
DEPTH_PEERS = ("bare_loop", *OURS, "kotakneoapi")

PACED_FRAMES = 1000
"""Frames a second while orders are placed: 50,000 ticks."""
ORDERS_A_SECOND = 200
TRAFFIC = 5000
"""Ticks a second of the simulated traffic."""


class Throughput(msgspec.Struct, frozen=True):
    """The figures of one peer at one level."""

    figure: Figure
    """Ticks a second at the consumer."""
    cpu_us: Figure
    """Processor time of the peer for one tick sent."""
    lost: float
    """Share of the ticks that were conflated; median of the rounds."""
    server_busy: float
    """Share of its core that the server used; median of the rounds."""


class Round(msgspec.Struct, frozen=True):
    """The sample of one round of a peer, and the share of its core that the server used."""

    sample: FeedSample
    server_busy: float


class Server:
    """Controls the feed server, and reads its counters."""

    def __init__(self, url: str) -> None:
        self.url = url

    def plan(self, plan: Plan) -> Plan:
        self._get(f"/plan?{urlencode(msgspec.to_builtins(plan))}")
        return plan

    @property
    def cpu_seconds(self) -> float:
        return float(self._get("/count")["cpu_seconds"])

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path) as answer:
            content: dict[str, Any] = msgspec.json.decode(answer.read())
        return content


# --- ticks a second ---------------------------------------------------------------------------


def measure_throughput(
    level: str, names: Sequence[str], *, server: Server, on: Cores, rounds: int, seconds: float
) -> dict[str, Throughput]:
    """Return the figures by peer. A round has the frames that the peer takes in `seconds`."""
    frames = dict.fromkeys(names, TRIAL_FRAMES)
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(
                Worker("feed_peers:serve", on.client, name=name, url=server.url, level=level)
            )
            for name in names
        }

        def next_round(name: str) -> Round:
            plan = Plan(level, SUBSCRIBED, PER_FRAME, frames[name])
            result = _run_round(peers[name], server, plan)
            pace = plan.frames / result.sample.seconds
            frames[name] = max(TRIAL_FRAMES, int(pace * seconds))
            return result

        # Two rounds to warm up: the first is so short that it underrates the pace.
        by_peer = alternate(names, next_round, rounds=rounds, warm_up=2)
    return {name: _throughput(each) for name, each in by_peer.items()}


def _run_round(peer: Worker, server: Server, plan: Plan) -> Round:
    server.plan(plan)
    before = server.cpu_seconds
    sample = msgspec.convert(peer.ask(**msgspec.to_builtins(plan)), FeedSample)
    used = server.cpu_seconds - before
    sent = plan.frames * plan.per_frame + 1
    if sample.received + sample.lost != sent:
        raise SystemExit(
            f"{peer.name} received {sample.received} ticks and conflated {sample.lost} of {sent}"
        )
    return Round(sample, used / sample.seconds)


def _throughput(rounds: Sequence[Round]) -> Throughput:
    samples = [one.sample for one in rounds]
    return Throughput(
        figure=summarise(sample.received / sample.seconds for sample in samples),
        cpu_us=summarise(sample.cpu_us for sample in samples),
        lost=statistics.median(sample.lost / (sample.received + sample.lost) for sample in samples),
        server_busy=statistics.median(one.server_busy for one in rounds),
    )


# --- beside orders, in memory, over lost connections ------------------------------------------


def measure_latency(
    scenes: Worker, server: Server, *, rounds: int, seconds: float
) -> dict[str, list[Latency]]:
    plans = {
        "without ticks": Plan("lite", SUBSCRIBED, PER_FRAME),
        # More frames than the round takes; closing the feed stops the rest.
        "with ticks": Plan(
            "lite", SUBSCRIBED, PER_FRAME, int(PACED_FRAMES * (seconds + 60)), PACED_FRAMES
        ),
    }

    def next_round(name: str) -> Latency:
        plan = server.plan(plans[name])
        answer = scenes.ask(scene="latency", plan=plan, seconds=seconds, orders=ORDERS_A_SECOND)
        return msgspec.convert(answer, Latency)

    return alternate(list(plans), next_round, rounds=rounds)


def measure_memory(scenes: Worker, server: Server, *, minutes: float) -> Memory:
    frames = int(TRAFFIC * minutes * 60 / PER_FRAME)
    plan = server.plan(Plan("depth", ALL, PER_FRAME, frames))
    return msgspec.convert(scenes.ask(scene="memory", plan=plan), Memory)


def measure_reconnects(scenes: Worker, server: Server, *, drops: int) -> Reconnects:
    plan = server.plan(Plan("lite", ALL, PER_FRAME, frames=1_000_000, pace=20))
    return msgspec.convert(scenes.ask(scene="reconnects", plan=plan, drops=drops), Reconnects)


class Growth(msgspec.Struct, frozen=True):
    """The growth of the memory after the first fifth of the traffic."""

    first_mib: float
    """Mean of the first tenth of the samples."""
    last_mib: float
    """Mean of the last tenth."""
    slope: float
    """MiB a simulated minute, least squares."""


def growth(memory: Memory) -> Growth | None:
    """Return the growth, or None when the run was too short."""
    warm = [
        (ticks / TRAFFIC / 60, mib) for ticks, mib in memory.samples if ticks > memory.decoded / 5
    ]
    if len(warm) < 10:
        return None
    minutes, mib = [minute for minute, _ in warm], [size for _, size in warm]
    tenth = len(warm) // 10
    return Growth(
        first_mib=statistics.mean(mib[:tenth]),
        last_mib=statistics.mean(mib[-tenth:]),
        slope=statistics.linear_regression(minutes, mib).slope,
    )


# --- what was wanted --------------------------------------------------------------------------


def wanted_of_throughput(
    lite: Mapping[str, Throughput],
    depth: Mapping[str, Throughput],
    columns: Mapping[str, Throughput],
) -> list[Wanted]:
    figures = []
    if lite:
        ours = lite["neo_async"].figure.median
        figures += [
            at_least("lite: ticks/s against kotakneoapi", 50, ours / _pace(lite, "kotakneoapi")),
            at_least(
                "lite: ticks/s against the bare loop",
                0.7,
                ours / _pace(lite, "bare_loop"),
                note=(
                    "the bare loop makes no objects; one that makes the same structs reaches "
                    f"{_pace(lite, 'bare_structs') / _pace(lite, 'bare_loop'):.2f} × of it, and "
                    f"neo_async {ours / _pace(lite, 'bare_structs'):.2f} × of that"
                ),
            ),
        ]
    if depth:
        ratio = _pace(depth, "neo_async") / _pace(depth, "kotakneoapi")
        figures.append(at_least("depth: ticks/s against kotakneoapi", 20, ratio))
    if columns:
        figures.append(
            at_least("columns: ticks/s", 5e6, columns["columns"].figure.median, "ticks/s")
        )
    return figures


def _pace(by_peer: Mapping[str, Throughput], name: str) -> float:
    return by_peer[name].figure.median


def wanted_of_latency(rounds: Mapping[str, Sequence[Latency]]) -> list[Wanted]:
    p99 = {name: summarise(one.p99_us for one in each).median for name, each in rounds.items()}
    ratio = p99["with ticks"] / p99["without ticks"]
    return [at_most("orders beside 50,000 ticks/s: p99 against without", 3, ratio)]


def wanted_of_memory(memory: Memory) -> list[Wanted]:
    found = growth(memory)
    if found is None:
        return []
    grown = found.last_mib - found.first_mib
    return [at_most("memory under a slow consumer: growth after warm-up", 1, grown, "MiB")]


def wanted_of_reconnects(result: Reconnects) -> list[Wanted]:
    return [
        at_most("reconnect: first tick, slowest", 250, max(result.milliseconds), "ms"),
        at_least(
            "reconnect: instruments subscribed again, fewest",
            ALL,
            min(result.subscribed),
            "instruments",
        ),
    ]


# --- the report -------------------------------------------------------------------------------


def throughput_table(level: str, by_peer: Mapping[str, Throughput]) -> Table:
    headers = ["", "ticks/s", "low – high", "× bare loop", "× kotakneoapi", "CPU, µs"]
    headers += ["conflated", "server"]
    title = f"{level}: {SUBSCRIBED:,} instruments, {PER_FRAME} packets a frame"
    return Table(title, headers, [[name, *_cells(name, by_peer)] for name in by_peer])


def _cells(name: str, by_peer: Mapping[str, Throughput]) -> list[str]:
    one = by_peer[name]
    cells = one.figure.cells()
    for reference in ("bare_loop", "kotakneoapi"):
        other = by_peer.get(reference)
        cells.append(number(one.figure.median / other.figure.median) if other else "")
    return [*cells, number(one.cpu_us.median), f"{one.lost:.1%}", server_cell(one.server_busy)]


def latency_table(rounds: Mapping[str, Sequence[Latency]]) -> Table:
    rows = []
    for name, each in rounds.items():
        median = summarise(one.median_us for one in each).median
        p99 = summarise(one.p99_us for one in each)
        pace = summarise(one.ticks_a_second for one in each).median
        rows.append([name, number(median), *p99.cells(), number(pace)])
    return Table(
        f"placing {ORDERS_A_SECOND} orders a second, one at a time",
        ["", "median, µs", "p99, µs", "p99 low – high", "ticks/s meanwhile"],
        rows,
    )


def memory_table(memory: Memory, minutes: float) -> Table:
    counts = (memory.decoded, memory.received, memory.conflated, memory.most_pending)
    grown = growth(memory)
    mib = (
        [f"{grown.first_mib:.2f}", f"{grown.last_mib:.2f}", f"{grown.slope:.3f}"]
        if grown
        else ["", "", ""]
    )
    return Table(
        f"memory: {ALL} instruments at depth, {minutes:g} min of {TRAFFIC:,} ticks/s in "
        f"{memory.seconds:.1f} s",
        ["ticks", "at the consumer", "conflated", "most pending", "MiB first", "last", "MiB/min"],
        [[*(f"{count:,}" for count in counts), *mib]],
    )


def reconnects_table(result: Reconnects) -> Table:
    times = summarise(result.milliseconds)
    return Table(
        "reconnect, server back at once: from the cut to the first tick",
        ["drops", "median, ms", "slowest, ms", "instruments again", "frames for it"],
        [
            [
                str(times.rounds),
                number(times.median),
                number(times.high),
                f"{min(result.subscribed):,}",
                str(max(result.subscribe_frames)),
            ]
        ],
    )


def measure(arguments: argparse.Namespace) -> Report:
    """Measure the chosen parts."""
    on = Cores.of_machine()
    rounds, seconds, only = arguments.rounds, arguments.seconds, arguments.only
    throughput: dict[str, dict[str, Throughput]] = {"lite": {}, "depth": {}, "columns": {}}
    latency: dict[str, list[Latency]] = {}
    memory: Memory | None = None
    reconnect: Reconnects | None = None
    tables: list[Table] = []
    with ExitStack() as stack:
        server = Server(stack.enter_context(Worker("feed_server:serve", on.server)).ready["url"])
        for part, level, names in (
            ("lite", "lite", LITE_PEERS),
            ("depth", "depth", DEPTH_PEERS),
            ("columns", "lite", ("columns",)),
        ):
            if part in only:
                throughput[part] = measure_throughput(
                    level, names, server=server, on=on, rounds=rounds, seconds=seconds
                )
                tables.append(throughput_table(part, throughput[part]))
        wanted = wanted_of_throughput(**throughput)
        scenes = stack.enter_context(Worker("feed_scenes:serve", on.client, url=server.url))
        if "latency" in only:
            latency = measure_latency(scenes, server, rounds=rounds, seconds=4 * seconds)
            wanted += wanted_of_latency(latency)
            tables.append(latency_table(latency))
        if "memory" in only:
            memory = measure_memory(scenes, server, minutes=arguments.minutes)
            wanted += wanted_of_memory(memory)
            tables.append(memory_table(memory, arguments.minutes))
        if "reconnect" in only:
            reconnect = measure_reconnects(scenes, server, drops=arguments.drops)
            wanted += wanted_of_reconnects(reconnect)
            tables.append(reconnects_table(reconnect))
    settings = {
        "rounds": rounds,
        "seconds": seconds,
        "per_frame": PER_FRAME,
        "instruments": SUBSCRIBED,
        "minutes": arguments.minutes,
        "traffic": TRAFFIC,
    }
    return Report(
        {
            "settings": settings | on.settings(),
            **throughput,
            "latency": latency,
            "memory": memory,
            "memory_growth": growth(memory) if memory else None,
            "reconnect": reconnect,
        },
        tables,
        wanted,
        on.conditions(rounds, seconds, warm_up="two"),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=10.0, help="of simulated traffic")
    parser.add_argument("--drops", type=int, default=10, help="of the connection")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")


BENCHMARK = Benchmark(
    "feed",
    __doc__,
    measure,
    packages=("uvloop", "aiohttp", "msgspec", "numpy", "websockets", "kotakneoapi"),
    rounds=7,
    seconds=1.0,
    add_options=add_options,
)

if __name__ == "__main__":
    BENCHMARK.main()
