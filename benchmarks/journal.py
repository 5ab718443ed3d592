"""What the journal costs on the order path, measured against the same client without one.

    python -m benchmarks.journal [--json] [--rounds N] [--seconds S]

Server, peers and rounds are those of `benchmarks.orders`, over TCP. The journals lie in the folder
for temporary files; `TMPDIR` puts them on another disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.harness import (
    Figure,
    Wanted,
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
from benchmarks.orders import Cores, Turn, run_rounds
from benchmarks.peers import IN_FLIGHT, Lap

PACKAGES = ("uvloop", "httptools", "msgspec")

WITHOUT = "neo_async"
PROCESS = "journal"
POWER = "journal_power"
NAMES = {WITHOUT: "no journal", PROCESS: "process", POWER: "power"}


class Journalled(msgspec.Struct, frozen=True):
    """One client over the rounds. Times in microseconds."""

    mean_us: Figure
    """Of one order, one in flight."""
    median_us: Figure
    p99_us: Figure
    cpu_us: Figure
    """Processor time of an order, one in flight, all threads together."""
    orders_a_second: Figure
    """Many in flight."""
    cpu_at_once_us: Figure
    """Processor time of an order, many in flight."""


def _mean_us(lap: Lap) -> float:
    return lap.seconds / lap.orders * 1e6


def summary_of(one: Sequence[Turn], many: Sequence[Turn]) -> Journalled:
    return Journalled(
        mean_us=summarise(_mean_us(turn.lap) for turn in one),
        median_us=summarise(turn.lap.median_us for turn in one),
        p99_us=summarise(turn.lap.p99_us for turn in one),
        cpu_us=summarise(turn.lap.cpu_us for turn in one),
        orders_a_second=summarise(turn.lap.orders / turn.lap.seconds for turn in many),
        cpu_at_once_us=summarise(turn.lap.cpu_us for turn in many),
    )


def cost_of(
    journalled: Sequence[Turn], bare: Sequence[Turn], figure: Callable[[Lap], float]
) -> Figure:
    """What each round took more than the round without a journal beside it."""
    pairs = zip(journalled, bare, strict=True)
    return summarise(figure(turn.lap) - figure(beside.lap) for turn, beside in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds a client and measure")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one round")
    arguments = parser.parse_args()
    description = machine(PACKAGES)
    on = Cores(*cores())
    one, many = run_rounds(
        list(NAMES), on=on, tls=False, rounds=arguments.rounds, seconds=arguments.seconds
    )
    clients = {name: summary_of(one[name], many[name]) for name in NAMES}
    costs = {
        "mean_us": cost_of(one[PROCESS], one[WITHOUT], _mean_us),
        "median_us": cost_of(one[PROCESS], one[WITHOUT], lambda lap: lap.median_us),
        "p99_us": cost_of(one[PROCESS], one[WITHOUT], lambda lap: lap.p99_us),
        "cpu_us": cost_of(one[PROCESS], one[WITHOUT], lambda lap: lap.cpu_us),
        "mean_at_once_us": cost_of(many[PROCESS], many[WITHOUT], _mean_us),
        "cpu_at_once_us": cost_of(many[PROCESS], many[WITHOUT], lambda lap: lap.cpu_us),
    }
    wanted = wanted_of(costs, clients)
    if arguments.json:
        print_json(
            {
                "benchmark": "journal",
                "machine": description,
                "settings": {
                    "rounds": arguments.rounds,
                    "seconds": arguments.seconds,
                    "in_flight": IN_FLIGHT,
                    "server_core": on.server,
                    "client_core": on.client,
                },
                "clients": clients,
                "costs": costs,
                "wanted": wanted,
            }
        )
        return
    print_machine(description)
    print(
        f"{arguments.rounds} alternating rounds of {arguments.seconds:g} s after one to warm up; "
        f"server on core {on.server}, client on core {on.client}"
    )
    print_clients(clients)
    print_table(
        "what the journal (process) costs an order, µs: round against the round beside it",
        ["", "median", "low – high"],
        [[name.removesuffix("_us").replace("_", " "), *_cells(costs[name])] for name in costs],
    )
    print_wanted(wanted)


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


def print_clients(clients: dict[str, Journalled]) -> None:
    print_table(
        f"an order: one in flight, µs; {IN_FLIGHT} in flight, orders a second",
        ["", "mean", "median", "p99", "CPU", "orders/s", "low – high", "CPU at once"],
        [
            [
                NAMES[name],
                *(number(figure.median) for figure in (c.mean_us, c.median_us, c.p99_us, c.cpu_us)),
                *_cells(c.orders_a_second),
                number(c.cpu_at_once_us.median),
            ]
            for name, c in clients.items()
        ],
    )


def _cells(figure: Figure) -> list[str]:
    return [number(figure.median), f"{number(figure.low)} – {number(figure.high)}"]


if __name__ == "__main__":
    main()
