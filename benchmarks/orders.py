"""Orders: the cost of placing one regular limit order, in this library and its peers.

The server has one core and a process of its own, the peer whose turn it is has another; the
peers' rounds alternate. README.md beside this file explains the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import msgspec

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
from benchmarks.peers import PEERS
from benchmarks.placing import IN_FLIGHT, Address, Sample
from benchmarks.workers import Cores, Worker, in_fresh_process, server_cell


class Measured(msgspec.Struct, frozen=True):
    """The figures of one peer over one transport, with one or with many orders in flight."""

    figure: Figure
    """Microseconds an order with one in flight, orders a second with many in flight."""
    cpu_us: Figure
    """Processor time of the peer for one order, without its waits."""
    server_busy: float
    """Share of its core that the server used; median of the rounds."""
    p99_us: Figure | None = None


class Round(msgspec.Struct, frozen=True):
    """The sample of one round of a peer, and the share of its core that the server used."""

    sample: Sample
    server_busy: float


def measure_orders(
    names: Sequence[str], *, on: Cores, tls: bool, rounds: int, seconds: float
) -> tuple[dict[str, Measured], dict[str, Measured]]:
    """Return the figures with one order in flight and with many, each by peer."""
    one, many = run_rounds(names, on=on, tls=tls, rounds=rounds, seconds=seconds)
    return (
        {name: _one_in_flight(each) for name, each in one.items()},
        {name: _many_in_flight(each) for name, each in many.items()},
    )


def run_rounds(
    names: Sequence[str], *, on: Cores, tls: bool, rounds: int, seconds: float
) -> tuple[dict[str, list[Round]], dict[str, list[Round]]]:
    """Return every round with one order in flight and with many, each by peer."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = Worker("server:serve", on.server, tls_folder=folder if tls else "")
        address = msgspec.convert(stack.enter_context(server).ready, Address)
        peers = {
            name: stack.enter_context(
                Worker(
                    "peers:serve",
                    on.client,
                    name=name,
                    url=address.url,
                    ca_file=address.ca_file,
                )
            )
            for name in names
        }

        def rounds_of(measure: str) -> dict[str, list[Round]]:
            return alternate(
                names,
                lambda name: _run_round(peers[name], address, measure, seconds),
                rounds=rounds,
            )

        return rounds_of("in_turn"), rounds_of("at_once")


def _run_round(peer: Worker, address: Address, measure: str, seconds: float) -> Round:
    before = _counters(address)
    sample = msgspec.convert(peer.ask(measure=measure, seconds=seconds), Sample)
    after = _counters(address)
    arrived = after["orders"] - before["orders"]
    # The peer has no record of whether an order that it gave up on arrived.
    if not sample.orders <= arrived <= sample.orders + sample.failed:
        raise SystemExit(
            f"{peer.name} reports {sample.orders} orders, the server counted {arrived:.0f}"
        )
    if sample.failed:
        print(
            f"{peer.name} gave up on {sample.failed} orders beside {sample.orders}", file=sys.stderr
        )
    return Round(sample, (after["cpu_seconds"] - before["cpu_seconds"]) / sample.seconds)


def _counters(address: Address) -> dict[str, float]:
    with urllib.request.urlopen(f"{address.url}/count", context=address.tls()) as answer:
        counters: dict[str, float] = json.load(answer)
    return counters


def _one_in_flight(rounds: Sequence[Round]) -> Measured:
    return Measured(
        figure=summarise(one.sample.median_us for one in rounds),
        cpu_us=summarise(one.sample.cpu_us for one in rounds),
        server_busy=summarise(one.server_busy for one in rounds).median,
        p99_us=summarise(one.sample.p99_us for one in rounds),
    )


def _many_in_flight(rounds: Sequence[Round]) -> Measured:
    return Measured(
        figure=summarise(one.sample.orders / one.sample.seconds for one in rounds),
        cpu_us=summarise(one.sample.cpu_us for one in rounds),
        server_busy=summarise(one.server_busy for one in rounds).median,
    )


# --- what was wanted --------------------------------------------------------------------------


def wanted_of_orders(one: Mapping[str, Measured], many: Mapping[str, Measured]) -> list[Wanted]:
    """Return the wanted figures over plain TCP, for the peers that were measured."""

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


# --- the report -------------------------------------------------------------------------------


def orders_tables(
    title: str, unit: str, by_transport: Mapping[str, Mapping[str, Measured]]
) -> list[Table]:
    """Return one table for each transport."""
    tables = []
    for transport, measured in by_transport.items():
        has_p99 = any(one.p99_us for one in measured.values())
        headers = [transport, unit, "low – high", *(["p99"] if has_p99 else [])]
        headers += ["× socket", "faster than kotakneoapi", "CPU, µs", "server"]
        tables.append(Table(title, headers, [[name, *_cells(name, measured)] for name in measured]))
    return tables


def _cells(name: str, by_peer: Mapping[str, Measured]) -> list[str]:
    measured = by_peer[name]
    figure = measured.figure
    cells = figure.cells()
    if measured.p99_us is not None:
        cells.append(number(measured.p99_us.median))
    limit, sdk = by_peer.get("socket"), by_peer.get("kotakneoapi")
    cells.append(number(figure.median / limit.figure.median) if limit else "")
    if sdk is None:
        cells.append("")
    else:
        faster = figure.median / sdk.figure.median
        # A time is better when it is lower, a rate when it is higher.
        cells.append(f"{number(1 / faster if measured.p99_us else faster)} ×")
    return [*cells, number(measured.cpu_us.median), server_cell(measured.server_busy)]


def limiter_table(limiter: Mapping[str, float]) -> Table:
    return Table(
        "limiter, real clock",
        ["most starts in any 1 s", "sustained a second", "one pass when free, µs"],
        [[number(limiter[key]) for key in ("most_in_a_second", "sustained", "free_us")]],
    )


def measure(arguments: argparse.Namespace) -> Report:
    """Measure every peer over every transport, and the limiter."""
    on = Cores.of_machine()
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
    tables = [
        *orders_tables("one order in flight", "µs", one),
        *orders_tables(f"{IN_FLIGHT} orders in flight", "orders/s", many),
    ]
    limiter: dict[str, float] | None = None
    if not arguments.skip_limiter:
        limiter = in_fresh_process("limiter:serve", dict[str, float], on.client)
        wanted += wanted_of_limiter(limiter)
        tables.append(limiter_table(limiter))
    settings = {"rounds": arguments.rounds, "seconds": arguments.seconds, "in_flight": IN_FLIGHT}
    return Report(
        {
            "settings": settings | on.settings(),
            "one_in_flight": one,
            "many_in_flight": many,
            "limiter": limiter,
        },
        tables,
        wanted,
        on.conditions(arguments.rounds, arguments.seconds),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tls", action=argparse.BooleanOptionalAction, default=True, help="measure TLS as well"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--skip-limiter", action="store_true", help="leave its 11 s out")
    parser.add_argument(
        "--one-core", action="store_true", help="server and peer share a core: no core to wake"
    )


BENCHMARK = Benchmark(
    "orders",
    __doc__,
    measure,
    packages=("uvloop", "httptools", "msgspec", "aiohttp", "httpx", "kotakneoapi"),
    rounds=7,
    seconds=1.0,
    add_options=add_options,
)

if __name__ == "__main__":
    BENCHMARK.main()
