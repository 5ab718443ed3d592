"""Journal: its cost on the order path, against the same client without one.

Server, peers and rounds are those of `benchmarks.orders`, over TCP. The journals lie in the folder
for temporary files; `TMPDIR` puts them on another disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

import msgspec

from benchmarks.harness import (
    Benchmark,
    Figure,
    Report,
    Table,
    Wanted,
    at_least,
    at_most,
    number,
    summarise,
)
from benchmarks.orders import Round, run_rounds
from benchmarks.placing import IN_FLIGHT, Sample
from benchmarks.workers import Cores

WITHOUT = "neo_async"
PROCESS = "journal"
POWER = "journal_power"
NAMES = {WITHOUT: "no journal", PROCESS: "process", POWER: "power"}


class Journalled(msgspec.Struct, frozen=True):
    """The figures of one client. Times are in microseconds."""

    mean_us: Figure
    """Mean time of an order, one in flight."""
    median_us: Figure
    p99_us: Figure
    cpu_us: Figure
    """Processor time of an order, one in flight, all threads together."""
    orders_a_second: Figure
    """Rate with many orders in flight."""
    cpu_at_once_us: Figure
    """Processor time of an order, many in flight."""


def _mean_us(sample: Sample) -> float:
    return sample.seconds / sample.orders * 1e6


def summary_of(one: Sequence[Round], many: Sequence[Round]) -> Journalled:
    return Journalled(
        mean_us=summarise(_mean_us(each.sample) for each in one),
        median_us=summarise(each.sample.median_us for each in one),
        p99_us=summarise(each.sample.p99_us for each in one),
        cpu_us=summarise(each.sample.cpu_us for each in one),
        orders_a_second=summarise(each.sample.orders / each.sample.seconds for each in many),
        cpu_at_once_us=summarise(each.sample.cpu_us for each in many),
    )


def cost_of(
    journalled: Sequence[Round], bare: Sequence[Round], figure: Callable[[Sample], float]
) -> Figure:
    """Return the difference between each round and the round without a journal beside it."""
    pairs = zip(journalled, bare, strict=True)
    return summarise(figure(each.sample) - figure(beside.sample) for each, beside in pairs)


def wanted_of(costs: dict[str, Figure], clients: dict[str, Journalled]) -> list[Wanted]:
    return [
        at_most("an order's journal (process), one in flight", 35, costs["mean_us"].median, "µs"),
        at_most("the same, processor time", 35, costs["cpu_us"].median, "µs"),
        at_most(f"the same, {IN_FLIGHT} in flight", 35, costs["cpu_at_once_us"].median, "µs"),
        at_least(
            f"with power, {IN_FLIGHT} in flight",
            3000,
            clients[POWER].orders_a_second.median,
            "orders/s",
        ),
    ]


def clients_table(clients: Mapping[str, Journalled]) -> Table:
    return Table(
        f"an order: one in flight, µs; {IN_FLIGHT} in flight, orders a second",
        ["", "mean", "median", "p99", "CPU", "orders/s", "low – high", "CPU at once"],
        [
            [
                NAMES[name],
                *(number(figure.median) for figure in (c.mean_us, c.median_us, c.p99_us, c.cpu_us)),
                *c.orders_a_second.cells(),
                number(c.cpu_at_once_us.median),
            ]
            for name, c in clients.items()
        ],
    )


def costs_table(costs: Mapping[str, Figure]) -> Table:
    return Table(
        "what the journal (process) costs an order, µs: round against the round beside it",
        ["", "median", "low – high"],
        [
            [name.removesuffix("_us").replace("_", " "), *figure.cells()]
            for name, figure in costs.items()
        ],
    )


def measure(arguments: argparse.Namespace) -> Report:
    """Measure the clients, and the difference that the journal makes."""
    on = Cores.of_machine()
    one, many = run_rounds(
        list(NAMES), on=on, tls=False, rounds=arguments.rounds, seconds=arguments.seconds
    )
    clients = {name: summary_of(one[name], many[name]) for name in NAMES}
    costs = {
        "mean_us": cost_of(one[PROCESS], one[WITHOUT], _mean_us),
        "median_us": cost_of(one[PROCESS], one[WITHOUT], lambda sample: sample.median_us),
        "p99_us": cost_of(one[PROCESS], one[WITHOUT], lambda sample: sample.p99_us),
        "cpu_us": cost_of(one[PROCESS], one[WITHOUT], lambda sample: sample.cpu_us),
        "mean_at_once_us": cost_of(many[PROCESS], many[WITHOUT], _mean_us),
        "cpu_at_once_us": cost_of(many[PROCESS], many[WITHOUT], lambda sample: sample.cpu_us),
    }
    settings = {"rounds": arguments.rounds, "seconds": arguments.seconds, "in_flight": IN_FLIGHT}
    return Report(
        {"settings": settings | on.settings(), "clients": clients, "costs": costs},
        [clients_table(clients), costs_table(costs)],
        wanted_of(costs, clients),
        on.conditions(arguments.rounds, arguments.seconds),
    )


BENCHMARK = Benchmark(
    "journal",
    __doc__,
    measure,
    packages=("uvloop", "httptools", "msgspec"),
    rounds=9,
    seconds=1.0,
)

if __name__ == "__main__":
    BENCHMARK.main()
