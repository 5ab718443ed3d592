"""What the live market feed costs: ticks a second, beside orders, in memory, over lost connections.

    python -m benchmarks.feed [--json] [--rounds N] [--seconds S] [--only PART …]

The server has one core and a process of its own, the peer whose turn it is has another; the
peers' rounds alternate. README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

import msgspec

from benchmarks.feed_peers import FeedLap
from benchmarks.feed_scenes import Latency, Memory, Reconnects
from benchmarks.feed_server import Plan
from benchmarks.harness import (
    Figure,
    Wanted,
    alternate,
    at_least,
    at_most,
    cores,
    machine,
    number,
    print_json,
    print_machine,
    print_table,
    print_wanted,
    summarise,
)
from benchmarks.orders import SERVER_SATURATED, Cores, Worker, on_core

PACKAGES = ("uvloop", "aiohttp", "msgspec", "numpy", "websockets", "kotakneoapi")
PARTS = ("lite", "depth", "columns", "latency", "memory", "reconnect")
PER_FRAME = 50
SUBSCRIBED = 1000
"""Instruments of the throughput measures."""
ALL = 3000
"""Instruments that one connection may have."""
TRIAL_FRAMES = 20
"""Of the round that warms up, which also tells how many frames fill a round."""

OURS = ("neo_async", "neo_async_block", "neo_async_batches", "neo_async_callback")
LITE_PEERS = ("bare_loop", "bare_structs", *OURS, "kotakneoapi")
DEPTH_PEERS = ("bare_loop", *OURS, "kotakneoapi")

PACED_FRAMES = 1000
"""A second, while orders are placed: 50,000 ticks."""
ORDERS_A_SECOND = 200
TRAFFIC = 5000
"""Ticks a second of the simulated traffic."""


class Throughput(msgspec.Struct, frozen=True):
    """One peer at one level."""

    figure: Figure
    """Ticks a second at the consumer."""
    cpu_us: Figure
    """Processor time of the peer for one tick sent."""
    lost: float
    """Share of the ticks that were conflated on the way; median of the rounds."""
    server_busy: float
    """Share of its core that the server used; median of the rounds."""


class Turn(msgspec.Struct, frozen=True):
    lap: FeedLap
    server_busy: float


class Server:
    """The far end, told what to send."""

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
    """By peer. A round is as many frames as the peer took in `seconds` of its first."""
    frames = dict.fromkeys(names, TRIAL_FRAMES)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        peers = {
            name: stack.enter_context(
                Worker(
                    "benchmarks.feed_peers",
                    name,
                    *on_core(on.client),
                    f"--url={server.url}",
                    f"--level={level}",
                    folder=folder,
                )
            )
            for name in names
        }

        def turn(name: str) -> Turn:
            plan = Plan(level, SUBSCRIBED, PER_FRAME, frames[name])
            result = _turn(peers[name], server, plan)
            pace = plan.frames / result.lap.seconds
            frames[name] = max(TRIAL_FRAMES, int(pace * seconds))
            return result

        # Two rounds to warm up: the first is so short that it underrates the pace.
        turns = alternate(names, turn, rounds=rounds, warm_up=2)
    return {name: _throughput(laps) for name, laps in turns.items()}


def _turn(peer: Worker, server: Server, plan: Plan) -> Turn:
    server.plan(plan)
    before = server.cpu_seconds
    lap = msgspec.convert(peer.ask(**msgspec.to_builtins(plan)), FeedLap)
    used = server.cpu_seconds - before
    sent = plan.frames * plan.per_frame + 1
    if lap.received + lap.lost != sent:
        raise SystemExit(
            f"{peer.name} received {lap.received} ticks and conflated {lap.lost} of {sent}"
        )
    return Turn(lap, used / lap.seconds)


def _throughput(turns: Sequence[Turn]) -> Throughput:
    laps = [turn.lap for turn in turns]
    return Throughput(
        figure=summarise(lap.received / lap.seconds for lap in laps),
        cpu_us=summarise(lap.cpu_us for lap in laps),
        lost=statistics.median(lap.lost / (lap.received + lap.lost) for lap in laps),
        server_busy=statistics.median(turn.server_busy for turn in turns),
    )


# --- beside orders, in memory, over lost connections ------------------------------------------


def measure_latency(
    scenes: Worker, server: Server, *, rounds: int, seconds: float
) -> dict[str, list[Latency]]:
    plans = {
        "without ticks": Plan("lite", SUBSCRIBED, PER_FRAME),
        # More than the round takes; what is left goes unsent when the feed is closed.
        "with ticks": Plan(
            "lite", SUBSCRIBED, PER_FRAME, int(PACED_FRAMES * (seconds + 60)), PACED_FRAMES
        ),
    }

    def turn(name: str) -> Latency:
        plan = server.plan(plans[name])
        answer = scenes.ask(scene="latency", plan=plan, seconds=seconds, orders=ORDERS_A_SECOND)
        return msgspec.convert(answer, Latency)

    return alternate(list(plans), turn, rounds=rounds)


def measure_memory(scenes: Worker, server: Server, *, minutes: float) -> Memory:
    frames = int(TRAFFIC * minutes * 60 / PER_FRAME)
    plan = server.plan(Plan("depth", ALL, PER_FRAME, frames))
    return msgspec.convert(scenes.ask(scene="memory", plan=plan), Memory)


def measure_reconnects(scenes: Worker, server: Server, *, drops: int) -> Reconnects:
    plan = server.plan(Plan("lite", ALL, PER_FRAME, frames=1_000_000, pace=20))
    return msgspec.convert(scenes.ask(scene="reconnects", plan=plan, drops=drops), Reconnects)


class Growth(msgspec.Struct, frozen=True):
    """What the memory did once the first fifth of the traffic was through."""

    first_mib: float
    """Mean of the first tenth of the samples."""
    last_mib: float
    """Mean of the last tenth."""
    slope: float
    """MiB a simulated minute, least squares."""


def growth(memory: Memory) -> Growth | None:
    """None when the run was too short to tell."""
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
    p99 = {name: summarise(one.p99_us for one in laps).median for name, laps in rounds.items()}
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


# --- output -----------------------------------------------------------------------------------


def print_throughput(title: str, by_peer: Mapping[str, Throughput]) -> None:
    headers = ["", "ticks/s", "low – high", "× bare loop", "× kotakneoapi", "CPU, µs"]
    headers += ["conflated", "server"]
    print_table(title, headers, [[name, *_cells(name, by_peer)] for name in by_peer])


def _cells(name: str, by_peer: Mapping[str, Throughput]) -> list[str]:
    one = by_peer[name]
    cells = [number(one.figure.median), f"{number(one.figure.low)} – {number(one.figure.high)}"]
    for reference in ("bare_loop", "kotakneoapi"):
        other = by_peer.get(reference)
        cells.append(number(one.figure.median / other.figure.median) if other else "")
    full = "!" if one.server_busy > SERVER_SATURATED else ""
    return [
        *cells,
        number(one.cpu_us.median),
        f"{one.lost:.1%}",
        f"{one.server_busy:.0%}{full}",
    ]


def print_latency(rounds: Mapping[str, Sequence[Latency]]) -> None:
    rows = []
    for name, laps in rounds.items():
        median, p99 = (
            summarise(getattr(one, key) for one in laps) for key in ("median_us", "p99_us")
        )
        pace = summarise(one.ticks_a_second for one in laps).median
        low_high = f"{number(p99.low)} – {number(p99.high)}"
        rows.append([name, number(median.median), number(p99.median), low_high, number(pace)])
    print_table(
        f"placing {ORDERS_A_SECOND} orders a second, one at a time",
        ["", "median, µs", "p99, µs", "p99 low – high", "ticks/s meanwhile"],
        rows,
    )


def print_memory(memory: Memory, minutes: float) -> None:
    found = growth(memory)
    print_table(
        f"memory: {ALL} instruments at depth, {minutes:g} min of {TRAFFIC:,} ticks/s in "
        f"{memory.seconds:.1f} s",
        ["ticks", "at the consumer", "conflated", "most pending", "MiB first", "last", "MiB/min"],
        [
            [
                f"{memory.decoded:,}",
                f"{memory.received:,}",
                f"{memory.conflated:,}",
                f"{memory.most_pending:,}",
                *(
                    [f"{found.first_mib:.2f}", f"{found.last_mib:.2f}", f"{found.slope:.3f}"]
                    if found
                    else ["", "", ""]
                ),
            ]
        ],
    )


def print_reconnects(result: Reconnects) -> None:
    times = summarise(result.milliseconds)
    print_table(
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds a peer and measure")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one round")
    parser.add_argument("--minutes", type=float, default=10.0, help="of simulated traffic")
    parser.add_argument("--drops", type=int, default=10, help="of the connection")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    arguments = parser.parse_args()
    description = machine(PACKAGES)
    on = Cores(*cores())

    lite: dict[str, Throughput] = {}
    depth: dict[str, Throughput] = {}
    columns: dict[str, Throughput] = {}
    latency: dict[str, list[Latency]] = {}
    memory: Memory | None = None
    reconnect: Reconnects | None = None
    wanted: list[Wanted] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ready = stack.enter_context(
            Worker("benchmarks.feed_server", *on_core(on.server), folder=folder)
        ).ready
        server = Server(ready["url"])

        def throughput(level: str, names: Sequence[str]) -> dict[str, Throughput]:
            return measure_throughput(
                level,
                names,
                server=server,
                on=on,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
            )

        if "lite" in arguments.only:
            lite = throughput("lite", LITE_PEERS)
        if "depth" in arguments.only:
            depth = throughput("depth", DEPTH_PEERS)
        if "columns" in arguments.only:
            columns = throughput("lite", ["columns"])
        wanted += wanted_of_throughput(lite, depth, columns)

        scenes = stack.enter_context(
            Worker(
                "benchmarks.feed_scenes",
                *on_core(on.client),
                f"--url={server.url}",
                folder=folder,
            )
        )
        if "latency" in arguments.only:
            latency = measure_latency(
                scenes, server, rounds=arguments.rounds, seconds=4 * arguments.seconds
            )
            wanted += wanted_of_latency(latency)
        if "memory" in arguments.only:
            memory = measure_memory(scenes, server, minutes=arguments.minutes)
            wanted += wanted_of_memory(memory)
        if "reconnect" in arguments.only:
            reconnect = measure_reconnects(scenes, server, drops=arguments.drops)
            wanted += wanted_of_reconnects(reconnect)

    if arguments.json:
        print_json(
            {
                "benchmark": "feed",
                "machine": description,
                "settings": {
                    "rounds": arguments.rounds,
                    "seconds": arguments.seconds,
                    "per_frame": PER_FRAME,
                    "instruments": SUBSCRIBED,
                    "minutes": arguments.minutes,
                    "traffic": TRAFFIC,
                    "server_core": on.server,
                    "client_core": on.client,
                },
                "lite": lite,
                "depth": depth,
                "columns": columns,
                "latency": latency,
                "memory": memory,
                "memory_growth": growth(memory) if memory else None,
                "reconnect": reconnect,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    print(
        f"{arguments.rounds} alternating rounds of {arguments.seconds:g} s after two to warm up; "
        f"server on core {on.server}, client on core {on.client}"
    )
    for name, by_peer in (("lite", lite), ("depth", depth), ("columns", columns)):
        if by_peer:
            print_throughput(
                f"{name}: {SUBSCRIBED:,} instruments, {PER_FRAME} packets a frame", by_peer
            )
    if latency:
        print_latency(latency)
    if memory:
        print_memory(memory, arguments.minutes)
    if reconnect:
        print_reconnects(reconnect)
    print_wanted(wanted)


if __name__ == "__main__":
    main()
