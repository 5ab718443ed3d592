"""What placing one regular limit order costs: this library and its peers, measured in one run.

    python -m benchmarks.orders [--json] [--rounds N] [--seconds S] [--no-tls] [--skip-limiter]

The server has one core and a process of its own, the peer whose turn it is has another; the
peers' rounds alternate. README.md beside this file says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

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
from benchmarks.peers import IN_FLIGHT, PEERS, Address, Lap

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("uvloop", "httptools", "msgspec", "aiohttp", "httpx", "kotakneoapi")
SERVER_SATURATED = 0.95
"""Share of its core from which on the server, not the peer, may be what the figure shows."""


class Cores(msgspec.Struct, frozen=True):
    """Where the two sides run; None leaves it to the system."""

    server: int | None
    client: int | None


class Measured(msgspec.Struct, frozen=True):
    """One peer over one transport, one measure."""

    figure: Figure
    """Microseconds an order (one in flight), or orders a second (many in flight)."""
    cpu_us: Figure
    """Processor time of the peer for one order: what is left when waiting is taken away."""
    server_busy: float
    """Share of its core that the server used, median of the rounds."""
    p99_us: Figure | None = None


class Turn(msgspec.Struct, frozen=True):
    """What a peer reports of one round, and how busy it kept the server."""

    lap: Lap
    server_busy: float


class Worker:
    """A process of ours that says when it is ready, then takes commands and answers in JSON lines.

    It ends when its stdin does.
    """

    def __init__(self, module: str, *arguments: str, folder: str) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        ca_file = Path(folder, "ca.pem")
        # The SDK cannot be told which authority to trust; the variable is how httpx is.
        trust = {"SSL_CERT_FILE": str(ca_file)} if ca_file.exists() else {}
        self.name = " ".join([module, *arguments[:1]])
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **trust},
        )
        self.ready = self._answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command).decode() + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early, with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def on_core(core: int | None) -> list[str]:
    return [] if core is None else ["--core", str(core)]


# --- placing orders ---------------------------------------------------------------------------


@contextmanager
def _server(folder: str, *, on: Cores, tls: bool) -> Iterator[Address]:
    secure = ["--tls", folder] if tls else []
    with Worker("benchmarks.server", *on_core(on.server), *secure, folder=folder) as server:
        yield Address(server.ready["url"], server.ready["ca_file"])


def measure_orders(
    names: Sequence[str], *, on: Cores, tls: bool, rounds: int, seconds: float
) -> tuple[dict[str, Measured], dict[str, Measured]]:
    """One in flight and many in flight, each by peer."""
    one, many = run_rounds(names, on=on, tls=tls, rounds=rounds, seconds=seconds)
    return (
        {name: _one_in_flight(turns) for name, turns in one.items()},
        {name: _many_in_flight(turns) for name, turns in many.items()},
    )


def run_rounds(
    names: Sequence[str], *, on: Cores, tls: bool, rounds: int, seconds: float
) -> tuple[dict[str, list[Turn]], dict[str, list[Turn]]]:
    """Every round of one in flight and of many in flight, each by peer."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        address = stack.enter_context(_server(folder, on=on, tls=tls))
        peers = {
            name: stack.enter_context(
                Worker(
                    "benchmarks.peers",
                    name,
                    *on_core(on.client),
                    f"--url={address.url}",
                    f"--ca-file={address.ca_file}",
                    folder=folder,
                )
            )
            for name in names
        }

        def rounds_of(measure: str) -> dict[str, list[Turn]]:
            def turn(name: str) -> Turn:
                return _turn(peers[name], address, measure, seconds)

            return alternate(names, turn, rounds=rounds)

        return rounds_of("in_turn"), rounds_of("at_once")


def _turn(peer: Worker, address: Address, measure: str, seconds: float) -> Turn:
    before = _counters(address)
    lap = msgspec.convert(peer.ask(measure=measure, seconds=seconds), Lap)
    after = _counters(address)
    arrived = after["orders"] - before["orders"]
    # Whether an order that the peer gave up on arrived, the peer does not know.
    if not lap.orders <= arrived <= lap.orders + lap.failed:
        raise SystemExit(
            f"{peer.name} reports {lap.orders} orders, the server counted {arrived:.0f}"
        )
    if lap.failed:
        print(f"{peer.name} gave up on {lap.failed} orders beside {lap.orders}", file=sys.stderr)
    return Turn(lap, (after["cpu_seconds"] - before["cpu_seconds"]) / lap.seconds)


def _counters(address: Address) -> dict[str, float]:
    with urllib.request.urlopen(f"{address.url}/count", context=address.tls()) as answer:
        counters: dict[str, float] = json.load(answer)
    return counters


def _one_in_flight(turns: Sequence[Turn]) -> Measured:
    return Measured(
        figure=summarise(turn.lap.median_us for turn in turns),
        cpu_us=summarise(turn.lap.cpu_us for turn in turns),
        server_busy=summarise(turn.server_busy for turn in turns).median,
        p99_us=summarise(turn.lap.p99_us for turn in turns),
    )


def _many_in_flight(turns: Sequence[Turn]) -> Measured:
    return Measured(
        figure=summarise(turn.lap.orders / turn.lap.seconds for turn in turns),
        cpu_us=summarise(turn.lap.cpu_us for turn in turns),
        server_busy=summarise(turn.server_busy for turn in turns).median,
    )


# --- what was wanted --------------------------------------------------------------------------


def wanted_of_orders(one: Mapping[str, Measured], many: Mapping[str, Measured]) -> list[Wanted]:
    """The promises about plain TCP, as far as the peers they speak of were measured."""

    def cost(peer: str) -> float:
        return one[peer].figure.median

    def pace(peer: str) -> float:
        return many[peer].figure.median

    figures = []
    if {"neo_async", "socket"} <= one.keys():
        ratio = cost("neo_async") / cost("socket")
        figures.append(at_most("one in flight: time against the blocking socket", 2.5, ratio))
    if {"neo_async", "socket", "kotakneoapi"} <= one.keys():
        ratio = cost("kotakneoapi") / cost("neo_async")
        limit = cost("kotakneoapi") / cost("socket")
        note = f"the blocking socket itself is {limit:.1f} × faster" if limit < 12 else ""
        figures.append(at_least("one in flight: faster than kotakneoapi", 12, ratio, note=note))
    if {"neo_async", "kotakneoapi"} <= one.keys():
        ratio = pace("neo_async") / pace("kotakneoapi")
        figures.append(at_least("64 in flight: orders/s against kotakneoapi", 20, ratio))
    if {"neo_async", "aiohttp_tuned"} <= one.keys():
        ratio = pace("neo_async") / pace("aiohttp_tuned")
        figures.append(at_least("64 in flight: orders/s against tuned aiohttp", 2.5, ratio))
    return figures


def wanted_of_limiter(limiter: Mapping[str, float]) -> list[Wanted]:
    return [
        at_most(
            "limiter: starts in any 1 s", limiter["limit"], limiter["most_in_a_second"], "starts"
        ),
        at_least("limiter: sustained over 10 s", 9.8, limiter["sustained"], "a second"),
        at_most("limiter: one pass when free", 5, limiter["free_us"], "µs"),
    ]


# --- output -----------------------------------------------------------------------------------


def print_orders(title: str, unit: str, by_transport: Mapping[str, Mapping[str, Measured]]) -> None:
    for transport, measured in by_transport.items():
        has_p99 = any(one.p99_us for one in measured.values())
        headers = [transport, unit, "low – high", *(["p99"] if has_p99 else [])]
        headers += ["× socket", "faster than kotakneoapi", "CPU, µs", "server"]
        print_table(title, headers, [[name, *_cells(name, measured)] for name in measured])


def _cells(name: str, by_peer: Mapping[str, Measured]) -> list[str]:
    measured = by_peer[name]
    figure = measured.figure
    cells = [number(figure.median), f"{number(figure.low)} – {number(figure.high)}"]
    if measured.p99_us is not None:
        cells.append(number(measured.p99_us.median))
    limit, sdk = by_peer.get("socket"), by_peer.get("kotakneoapi")
    cells.append(number(figure.median / limit.figure.median) if limit else "")
    if sdk is None:
        cells.append("")
    else:
        faster = figure.median / sdk.figure.median
        # Of a time less is more, of a pace more.
        cells.append(f"{number(1 / faster if measured.p99_us else faster)} ×")
    full = "!" if measured.server_busy > SERVER_SATURATED else ""
    return [*cells, number(measured.cpu_us.median), f"{measured.server_busy:.0%}{full}"]


def print_limiter(limiter: Mapping[str, float]) -> None:
    print_table(
        "limiter, real clock",
        ["most starts in any 1 s", "sustained a second", "one pass when free, µs"],
        [[number(limiter[key]) for key in ("most_in_a_second", "sustained", "free_us")]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds a peer and measure")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one round")
    parser.add_argument(
        "--tls", action=argparse.BooleanOptionalAction, default=True, help="measure TLS as well"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--skip-limiter", action="store_true", help="leave its 11 s out")
    parser.add_argument(
        "--one-core", action="store_true", help="server and peer share a core: no core to wake"
    )
    arguments = parser.parse_args()
    description = machine(PACKAGES)
    on = Cores(*cores())
    if arguments.one_core:
        on = Cores(on.client, on.client)

    one: dict[str, dict[str, Measured]] = {}
    many: dict[str, dict[str, Measured]] = {}
    for transport in ("tcp", "tls") if arguments.tls else ("tcp",):
        one[transport], many[transport] = measure_orders(
            arguments.peers,
            on=on,
            tls=transport == "tls",
            rounds=arguments.rounds,
            seconds=arguments.seconds,
        )
    wanted = wanted_of_orders(one["tcp"], many["tcp"])
    limiter: dict[str, Any] | None = None
    if not arguments.skip_limiter:
        limiter = _measure_limiter(on.client)
        wanted += wanted_of_limiter(limiter)

    settings = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "in_flight": IN_FLIGHT,
        "server_core": on.server,
        "client_core": on.client,
    }
    if arguments.json:
        print_json(
            {
                "benchmark": "orders",
                "machine": description,
                "settings": settings,
                "one_in_flight": one,
                "many_in_flight": many,
                "limiter": limiter,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    print(
        f"{arguments.rounds} alternating rounds of {arguments.seconds:g} s after one to warm up; "
        f"server on core {on.server}, client on core {on.client}"
    )
    print_orders("one order in flight", "µs", one)
    print_orders(f"{IN_FLIGHT} orders in flight", "orders/s", many)
    if limiter is not None:
        print_limiter(limiter)
    print_wanted(wanted)


def _measure_limiter(core: int | None) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Worker("benchmarks.limiter", *on_core(core), folder=folder) as worker,
    ):
        return worker.ready


if __name__ == "__main__":
    main()
