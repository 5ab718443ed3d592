"""Order safety under faults: programs, kills, outages and leaks, compared with the ledger.

    python -m tests.simulation --seeds N [--orders N]           programs of orders, all faults on
    python -m tests.simulation --first K --seeds N              the same, of the seeds from K
    python -m tests.simulation --seed K [--orders N] [--story]  one of them, step by step
    python -m tests.simulation --plans N [--first K]            programs of exit plans, with faults
    python -m tests.simulation --kills N                        SIGKILL at any moment, restart
    python -m tests.simulation --plan-kills N                   the same with plans, at every step
    python -m tests.simulation --outage                         5 s without an exchange
    python -m tests.simulation --leaks N                        leaks after faulty requests

Without any of them, all of them at full size. `--json` prints one JSON object. The exit code is 0
when every wanted figure was reached.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.harness import (
    Wanted,
    at_most,
    machine,
    number,
    print_json,
    print_machine,
    print_table,
    print_wanted,
)
from tests.simulation.kills import Kills, kill_repeatedly
from tests.simulation.leaks import Leaks
from tests.simulation.leaks import measure as measure_leaks
from tests.simulation.outages import OUTAGE, Outage
from tests.simulation.outages import measure as measure_outage
from tests.simulation.plan_kills import STEPS, PlanKills, kill_at_steps
from tests.simulation.plans import PlanReport, run_plans
from tests.simulation.programs import CANCEL_BOUND, RESOLUTION_TIMEOUT, run_program
from tests.simulation.reports import Report

PACKAGES = ("aiohttp", "httptools", "msgspec")
SEEDS = 200
ORDERS = 100
JOBS = 4
"""Programs at a time: they mostly wait, a real millisecond before each step of virtual time."""
PLAN_SEEDS = 100
PLANS = 20
"""Plans of a program."""
KILLS = 100
PLAN_KILLS = 100
LEAKS = 10_000
MIB_MORE = 3.0
"""MiB that the allocator may keep."""


# --- programs -------------------------------------------------------------------------------------


def run_programs(seeds: Sequence[int], orders: int, jobs: int) -> list[Report]:
    """Run one program for each seed, `jobs` at a time, and print problems as they are found."""
    reports = []
    with ProcessPoolExecutor(jobs, initializer=_disable_logging) as pool:
        for report in pool.map(functools.partial(run_program, orders=orders), seeds):
            reports.append(report)
            for problem in report.problems:
                print(f"seed {report.seed}: {problem}", file=sys.stderr)
    return reports


def _disable_logging() -> None:
    logging.disable(logging.CRITICAL)


def total_of(reports: Sequence[Report]) -> dict[str, Any]:
    faults: Counter[str] = sum((report.faults for report in reports), Counter())
    outcomes: Counter[str] = sum((report.outcomes for report in reports), Counter())
    return {
        "seeds": len(reports),
        "orders": sum(report.orders for report in reports),
        "calls": outcomes.total(),
        "accepted": sum(report.accepted for report in reports),
        "faults": faults.total(),
        "doubles": sum(report.doubles for report in reports),
        "lost": sum(report.lost for report in reports),
        "wrong": sum(report.wrong for report in reports),
        "unknown": sum(report.unknown for report in reports),
        "broken": sum(report.broken for report in reports),
        "leaks": sum(report.leaks for report in reports),
        "halts": sum(report.halts for report in reports),
        "nights": sum(report.nights for report in reports),
        "left_open": sum(report.left_open for report in reports),
        "late_cancels": sum(report.late_cancels for report in reports),
        "slowest_cancel": max(report.slowest_cancel for report in reports),
        "overdue": sum(report.overdue for report in reports),
        "slowest": max(report.slowest for report in reports),
        "failed_seeds": [report.seed for report in reports if not report.is_good],
        "outcomes": dict(outcomes),
        "injected": dict(faults),
    }


def wanted_of_programs(total: dict[str, Any]) -> list[Wanted]:
    size = f"{total['seeds']} seeds × {total['orders'] // total['seeds']} orders"
    return [
        at_most(f"{size}: accepted twice", 0, total["doubles"], "orders"),
        at_most("the same: lost", 0, total["lost"], "orders"),
        at_most("the same: wrong outcomes or states", 0, total["wrong"], ""),
        at_most("the same: unknown after the resolution timeout", 0, total["unknown"], "requests"),
        at_most("the same: waited for and reported unknown", 0, total["overdue"], "calls"),
        at_most("the same: programs that ended with an error", 0, total["broken"], "programs"),
        at_most("the same: tasks and files left", 0, total["leaks"], ""),
        at_most("the same: halts that left something open", 0, total["left_open"], "halts"),
        at_most(
            f"the same: cancels later than {CANCEL_BOUND:g} s", 0, total["late_cancels"], "cancels"
        ),
    ]


def print_programs(total: dict[str, Any]) -> None:
    print_table(
        "programs of orders with all faults on",
        ["", "count"],
        [
            ["calls to place, modify and cancel", number(total["calls"])],
            ["orders that the exchange accepted", number(total["accepted"])],
            ["faults injected", number(total["faults"])],
            ["halts, and nights that passed", f"{total['halts']}, {total['nights']}"],
            [
                f"slowest outcome, s (resolution timeout: {RESOLUTION_TIMEOUT:g})",
                number(total["slowest"]),
            ],
            ["slowest cancel until it arrived, s", number(total["slowest_cancel"])],
        ],
    )
    for title, counts in (
        ("outcomes of calls", total["outcomes"]),
        ("injected faults", total["injected"]),
    ):
        rows = sorted(counts.items(), key=lambda item: -item[1])
        print_table(title, ["", "count"], [[name, number(count)] for name, count in rows])


def print_story(seed: int, orders: int) -> int:
    """Run one program and print every step of it."""
    report = run_program(seed, orders, story=print)
    for problem in report.problems:
        print(problem)
    print(f"seed {seed}: {report.accepted} orders, {len(report.problems)} problems")
    return 0 if report.is_good else 1


# --- exit plans -----------------------------------------------------------------------------------


def run_plan_programs(seeds: Sequence[int], jobs: int) -> list[PlanReport]:
    """Run one program of exit plans for each seed, `jobs` at a time."""
    reports = []
    with ProcessPoolExecutor(jobs, initializer=_disable_logging) as pool:
        for report in pool.map(functools.partial(run_plans, plans=PLANS), seeds):
            reports.append(report)
            for problem in report.problems:
                print(f"seed {report.seed}: {problem}", file=sys.stderr, flush=True)
    return reports


def total_of_plans(reports: Sequence[PlanReport]) -> dict[str, Any]:
    counts = ("turned", "silent", "doubles", "unfinished", "broken", "leaks", "crossed", "nights")
    ended: Counter[str] = sum((report.ended for report in reports), Counter())
    faults: Counter[str] = sum((report.faults for report in reports), Counter())
    return {
        "seeds": len(reports),
        "plans": sum(report.plans for report in reports),
        "faults": faults.total(),
        **{name: sum(getattr(report, name) for report in reports) for name in counts},
        "failed_seeds": [report.seed for report in reports if not report.is_good],
        "ended": dict(ended),
    }


def wanted_of_plans(total: dict[str, Any]) -> list[Wanted]:
    size = f"{total['seeds']} seeds × {PLANS} exit plans"
    return [
        at_most(f"{size}: positions turned round", 0, total["turned"], ""),
        at_most("the same: units without an exit in silence", 0, total["silent"], "times"),
        at_most("the same: steps placed twice", 0, total["doubles"], "orders"),
        at_most("the same: plans that do not end", 0, total["unfinished"], "plans"),
        at_most("the same: programs that ended with an error", 0, total["broken"], "programs"),
        at_most("the same: tasks left", 0, total["leaks"], ""),
    ]


def print_plans(total: dict[str, Any]) -> None:
    names = ("seeds", "plans", "faults", "nights", "crossed")
    print_table("exit plans", ["", "count"], [[name, number(total[name])] for name in names])
    rows = sorted(total["ended"].items(), key=lambda item: -item[1])
    print_table("how they ended", ["", "plans"], [[name, number(count)] for name, count in rows])


def print_plan_story(seed: int) -> int:
    """Run one program of exit plans and print every step of it."""
    report = run_plans(seed, PLANS, story=print)
    for problem in report.problems:
        print(problem)
    return 0 if report.is_good else 1


def wanted_of_plan_kills(kills: PlanKills) -> list[Wanted]:
    return [
        at_most(f"{kills.kills} kills of exit plans: positions turned", 0, kills.turned, ""),
        at_most("the same: units without an exit for long", 0, kills.bare, "times"),
        at_most("the same: steps placed twice", 0, kills.doubles, "orders"),
        at_most("the same: other problems", 0, len(kills.problems), ""),
    ]


def print_plan_kills(kills: PlanKills) -> None:
    rows = [[step, number(count)] for step, count in sorted(kills.by_step.items())]
    print_table("kills of a bot with exit plans, by the step of the kill", ["", "count"], rows)
    for problem in kills.problems:
        print(problem, file=sys.stderr)


# --- kills, outages, leaks ------------------------------------------------------------------------


def wanted_of_kills(kills: Kills) -> list[Wanted]:
    return [
        at_most(f"{kills.kills} kills: orphans", 0, kills.orphans, "orders"),
        at_most("the same: doubles", 0, kills.doubles, "orders"),
        at_most("the same: other problems", 0, len(kills.problems), ""),
    ]


def print_kills(kills: Kills) -> None:
    print_table(
        "a bot killed with SIGKILL and started again on its journal",
        ["", "count"],
        [
            ["kills", number(kills.kills)],
            ["of them before the reconciliation was over", number(kills.starting)],
            ["requests that kills left open, resolved at a restart", number(kills.resolved)],
            ["orders that the exchange accepted", number(kills.accepted)],
        ],
    )
    for problem in kills.problems:
        print(problem, file=sys.stderr)


def wanted_of_outage(outage: Outage) -> list[Wanted]:
    title = f"exchange {outage.kind} for {OUTAGE:g} s"
    return [
        at_most(f"{title}: at the limit again after", 1, outage.recovery, "s"),
        at_most("the same: starts in the fullest second", 10, outage.most_in_a_second, "starts"),
        at_most("the same: orders unknown to their callers", 0, outage.lost, "orders"),
    ]


def print_outages(outages: Sequence[Outage]) -> None:
    print_table(
        "orders a second at the limit of 10, before and after an outage",
        ["exchange", "before", "after", "back after, s", "fullest second", "unknown"],
        [
            [
                outage.kind,
                number(outage.before),
                number(outage.after),
                number(outage.recovery),
                number(outage.most_in_a_second),
                number(outage.unknown),
            ]
            for outage in outages
        ],
    )


def wanted_of_leaks(leaks: Leaks) -> list[Wanted]:
    before, after = leaks.before, leaks.after
    return [
        at_most(
            f"{leaks.requests:,} faulty requests: files more", 0, after.files - before.files, ""
        ),
        at_most("the same: tasks more", 0, after.tasks - before.tasks, ""),
        at_most("the same: memory more", MIB_MORE, after.mib - before.mib, "MiB"),
        at_most("the same: requests without an outcome", 0, leaks.in_flight, ""),
    ]


def print_leaks(leaks: Leaks) -> None:
    print_table(
        "files, tasks and memory before and after faulty requests",
        ["", "files", "tasks", "MiB"],
        [
            [name, number(left.files), number(left.tasks), number(left.mib)]
            for name, left in (("before", leaks.before), ("after", leaks.after))
        ],
    )


# --- the command ----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="programs to run")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="first seed")
    parser.add_argument("--plans", type=int, metavar="N", help="programs of exit plans to run")
    parser.add_argument("--plan-seed", type=int, metavar="K", help="the steps of this one only")
    parser.add_argument("--orders", type=int, default=ORDERS, metavar="N", help="in a program")
    parser.add_argument("--jobs", type=int, default=JOBS, help="programs at a time")
    parser.add_argument("--seed", type=int, metavar="K", help="this program only")
    parser.add_argument("--story", action="store_true", help="with --seed: print every step")
    parser.add_argument("--kills", type=int, metavar="N", help="times to kill the bot")
    parser.add_argument("--plan-kills", type=int, metavar="N", help="the same with exit plans")
    parser.add_argument("--outage", action="store_true", help="outages of either kind")
    parser.add_argument("--leaks", type=int, metavar="N", help="faulty requests to make")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args()
    _disable_logging()
    if arguments.seed is not None and arguments.story:
        return print_story(arguments.seed, arguments.orders)
    if arguments.plan_seed is not None:
        return print_plan_story(arguments.plan_seed)
    chosen = ("seeds", "plans", "kills", "plan_kills", "outage", "leaks")
    if not any(getattr(arguments, name) for name in chosen):
        arguments.outage = True
        arguments.plans, arguments.plan_kills = PLAN_SEEDS, PLAN_KILLS
        arguments.kills, arguments.leaks = KILLS, LEAKS
        arguments.seeds = SEEDS if arguments.seed is None else None
    results = _measure(arguments)
    wanted = [figure for _, _, figures in results.values() for figure in figures]
    description = machine(PACKAGES)
    if arguments.json:
        print_json(
            {
                "benchmark": "faults",
                "machine": description,
                **{name: result for name, (result, _, _) in results.items()},
                "wanted": wanted,
            }
        )
    else:
        print_machine(description)
        for _, show, _ in results.values():
            show()
        print_wanted(wanted)
    return 0 if all(figure.reached for figure in wanted) else 1


_Result = tuple[Any, Callable[[], None], list[Wanted]]
"""The measured result, the function that prints it, and its wanted figures."""


def _measure(arguments: argparse.Namespace) -> dict[str, _Result]:
    results: dict[str, _Result] = {}
    if arguments.seeds or arguments.seed is not None:
        seeds = range(arguments.first, arguments.first + (arguments.seeds or 0))
        if arguments.seed is not None:
            seeds = range(arguments.seed, arguments.seed + 1)
        total = total_of(run_programs(seeds, arguments.orders, arguments.jobs))
        shown = functools.partial(print_programs, total)
        results["programs"] = total, shown, wanted_of_programs(total)
    if arguments.plans:
        seeds = range(arguments.first, arguments.first + arguments.plans)
        plans = total_of_plans(run_plan_programs(seeds, arguments.jobs))
        results["plans"] = plans, functools.partial(print_plans, plans), wanted_of_plans(plans)
    if arguments.plan_kills:
        rounds = -(-arguments.plan_kills // len(STEPS))
        killed = asyncio.run(kill_at_steps(rounds))
        shown = functools.partial(print_plan_kills, killed)
        results["plan_kills"] = killed, shown, wanted_of_plan_kills(killed)
    if arguments.kills:
        kills = asyncio.run(kill_repeatedly(arguments.kills))
        results["kills"] = kills, functools.partial(print_kills, kills), wanted_of_kills(kills)
    if arguments.outage:
        outages = [asyncio.run(measure_outage(kind)) for kind in ("killed", "stopped")]
        figures = [figure for outage in outages for figure in wanted_of_outage(outage)]
        results["outages"] = outages, functools.partial(print_outages, outages), figures
    if arguments.leaks:
        leaks = asyncio.run(measure_leaks(arguments.leaks))
        results["leaks"] = leaks, functools.partial(print_leaks, leaks), wanted_of_leaks(leaks)
    return results


if __name__ == "__main__":
    sys.exit(main())
