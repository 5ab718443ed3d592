"""neo-async demo: what it shows, what it counts, and that it notices when something is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import neo_async
from neo_async.cli.demo import plan
from neo_async.cli.demo.bracket import BracketReport
from neo_async.cli.demo.demo_order import DemoOrder
from neo_async.cli.demo.report import (
    LedgerEntry,
    Records,
    Report,
    ServerRequest,
    busiest,
    make_report,
    percentile,
    summary,
)
from neo_async.cli.demo.run import DemoRun
from neo_async.cli.demo.screen import board, final_board
from neo_async.exchange import Exchange
from tests.cli.conftest import Invoke
from tests.cli.terminal import interrupted
from tests.conftest import SHARED

COMMAND = (sys.executable, "-m", "neo_async", "demo")
NSE_CM = SHARED / "data" / "scripmaster" / "nse_cm.csv"


class Runs:
    """One run for machines, one into a pipe and one without any stream, side by side: each takes
    some seconds."""

    def __init__(self) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        begun = time.monotonic()
        processes = [
            subprocess.Popen(
                [*COMMAND, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
            )
            for arguments in (["--json", "--seed", "3"], ["--seed", "3"])
        ]
        streamless = subprocess.Popen(
            f"exec {sys.executable} -m neo_async demo --json <&- >&- 2>&-", shell=True
        )
        (self.json, self.json_errors), (self.piped, self.piped_errors) = (
            process.communicate(timeout=50) for process in processes
        )
        self.exit_codes = [process.returncode for process in processes]
        self.streamless_exit_code = streamless.wait(timeout=50)
        self.seconds = time.monotonic() - begun


@pytest.fixture(scope="module")
def runs() -> Runs:
    return Runs()


def test_it_ends_by_itself_and_well(runs: Runs) -> None:
    errors = runs.json_errors + runs.piped_errors
    assert runs.exit_codes == [0, 0], errors
    # On a machine under load, the log may hold a 429 that was waited out.
    assert "neo-async demo" not in errors
    assert "Traceback" not in errors
    assert runs.seconds < 20


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_closed_streams_do_no_harm(runs: Runs) -> None:
    assert runs.streamless_exit_code == 0


def test_json_is_one_object_whose_numbers_add_up(runs: Runs) -> None:
    assert runs.json.count("\n") == 1
    report = json.loads(runs.json)
    orders = report["orders"]
    final = orders["filled"] + orders["cancelled"] + orders["rejected"]
    assert orders["placed"] == 29 == final + orders["working"]
    assert (orders["modified"], orders["rejected"], orders["stopped_before_sending"]) == (5, 1, 1)
    assert orders["filled"] >= 17
    assert orders["cancelled"] in (6, 7)  # the IOC may find all it wants after all
    assert report["fills"]["count"] >= orders["filled"]
    assert report["pnl"]["total"] == pytest.approx(
        report["pnl"]["realised"] + report["pnl"]["unrealised"], abs=0.02
    )
    latency = report["latency_ms"]
    assert latency["count"] >= orders["placed"] - len(report["bracket"]["exit_orders"])
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    pace = report["pace"]
    assert pace["limit_orders"] == pace["limit_total"] == 10
    # A machine under load can hold a request up until it arrives too close to the next ones.
    assert 9 <= pace["busiest_second_orders"] <= 10 + pace["refused"]
    assert pace["busiest_second_total"] <= 10 + pace["refused"]
    assert report["problems"] == []
    assert len(report["checks"]) == 7
    (reason,) = report["rejections"].values()
    assert "Check holdings" in reason
    assert "cash segments only" in report["stopped"]


def test_a_bracket_goes_through_a_whipsaw_and_ends_flat(runs: Runs) -> None:
    bracket = json.loads(runs.json)["bracket"]
    assert (bracket["state"], bracket["net"]) == ("exited", 0)
    assert len(bracket["exit_orders"]) == 1
    assert float(bracket["stop"]) < float(bracket["target"])
    assert re.search(r"bracket +1 plan: [0-9,]+ [A-Z-]+, stop", runs.piped)
    assert "runs through target and stop in one moment" in " ".join(runs.piped.split())


async def test_a_bracket_that_is_not_flat_is_a_problem() -> None:
    report = await _report(Records([], []))
    assert "the bracket did not come to its end" in report.problems
    bracket = BracketReport(
        symbol="A-EQ",
        quantity=5,
        stop="1",
        target="2",
        state="exited",
        exited_by="stop",
        exit_orders=["1", "2"],
        net=-5,
    )
    report = await _report(Records([], []), bracket=bracket)
    assert "the bracket in A-EQ is exited, net -5, with 2 exit orders" in report.problems


async def test_the_bracket_s_share_is_none_of_the_others() -> None:
    async with Exchange(seed=1) as exchange:
        for seed in range(10):
            listings = plan.choose_listings(exchange.market, [], seed)
            assert plan.another_listing(exchange.market, listings, seed) not in listings


def test_a_pipe_gets_plain_lines_that_fit(runs: Runs) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", runs.piped)
    assert max(map(len, runs.piped.splitlines())) <= 80
    for words in (
        "logged in as",
        "24 accepted",
        "the stop is complete",
        "IOC for",
        "rejected: RMS",
    ):
        assert words in runs.piped


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_an_interruption_at_a_terminal_restores_it_and_exits_with_130() -> None:
    # The live screen has begun when the cursor is gone.
    exit_code, shown = interrupted(COMMAND, at=b"\x1b[?25l")
    assert exit_code == 130
    assert b"Traceback" not in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")  # the cursor is back


# --- the plan -------------------------------------------------------------------------------------


async def test_the_same_seed_trades_the_same_orders() -> None:
    async with Exchange(seed=1) as exchange:
        first, again = (plan.choose_listings(exchange.market, [], 1) for _ in range(2))
        other = plan.choose_listings(exchange.market, [], 2)
        assert first == again != other
        assert plan.burst(exchange.market, first) == plan.burst(exchange.market, again)


@pytest.mark.skipif(not NSE_CM.exists(), reason="needs the broker's file")
async def test_the_broker_s_file_yields_large_companies() -> None:
    async with Exchange(scripmaster=[NSE_CM]) as exchange:
        chosen = {
            listing.name
            for seed in range(20)
            for listing in plan.choose_listings(exchange.market, [NSE_CM], seed)
        }
    assert {"RELIANCE", "TCS", "HDFCBANK", "INFY", "SBIN"} <= chosen
    assert len(chosen) <= 40


async def test_a_file_without_enough_shares_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "empty.csv"
    file.write_text("pSymbol,pExchSeg,pTrdSymbol,dIssueCapital \n1,nse_cm,A-EQ\n")
    async with Exchange() as exchange:
        market = exchange.market
        # Nothing of the file is listed, so the built-in shares are traded instead.
        assert plan.choose_listings(market, [file], 0) == plan.choose_listings(market, [], 0)


# --- the screen -----------------------------------------------------------------------------------


async def _play(exchange: Exchange) -> DemoRun:
    """A run with its orders on the board, none of them sent."""
    demo_run = DemoRun(exchange, seed=1, scripmaster=[], pause=0.0)
    listings = plan.choose_listings(exchange.market, [], 1)
    demo_run.orders = [DemoOrder(request) for request in plan.burst(exchange.market, listings)]
    demo_run.events = [(0.1 * number, f"event {number} of a demo " * 5) for number in range(9)]
    return demo_run


@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (120, 40), (112, 30), (200, 60), (79, 30), (60, 22), (40, 24)]
)
async def test_the_board_fits_its_terminal(width: int, height: int) -> None:
    async with Exchange(seed=1) as exchange:
        lines = _drawn(board(await _play(exchange), width, height), width)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


async def test_the_final_board_shows_every_order() -> None:
    async with Exchange(seed=1) as exchange:
        demo_run = await _play(exchange)
        text = "\n".join(_drawn(final_board(demo_run, 80), 80))
    assert text.count("queued") == 24 + 1  # the rows, and the title


def _drawn(renderable: Any, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, height=10_000, highlight=False).print(renderable)
    return file.getvalue().splitlines()


# --- the verdict ----------------------------------------------------------------------------------


def test_the_busiest_second_is_found_wherever_it_begins() -> None:
    assert busiest([]) == 0
    assert busiest([0.0, 0.9, 1.0, 1.1]) == 3
    assert busiest([0.0, 1.0]) == 1  # a window of one second holds one of them
    assert busiest([0.0, 0.999]) == 2


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = list(range(1, 101))
    assert [percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([7], 99) == 7


async def test_an_order_that_only_the_exchange_knows_is_a_problem() -> None:
    stray = LedgerEntry("26112100000001", "tag", "open", 5, 0, 1)
    report = await _report(Records([stray], []))
    assert "order 26112100000001: None here, ('open', 0) at the exchange" in report.problems


async def test_an_order_that_arrived_twice_is_a_problem() -> None:
    report = await _report(Records([LedgerEntry("1", "tag", "complete", 5, 5, 2)], []))
    assert "order 1 arrived 2 times" in report.problems
    assert "0 units in the trade book, 5 filled at the exchange" in report.problems


async def test_too_many_requests_in_a_second_are_a_problem() -> None:
    place = "/neo/quick/order/rule/ms/place"
    report = await _report(Records([], [ServerRequest(n / 100, place) for n in range(11)]))
    assert report.pace.busiest_second_orders == 11
    assert "11 orders arrived in one second, and 0 of all were refused" in report.problems
    assert "11 requests arrived in one second, and 0 of all were refused" in report.problems


async def test_a_problem_ends_the_command_with_1(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = await _report(Records([], []))
    assert report.problems

    def run(coroutine: Any) -> tuple[None, Report]:
        coroutine.close()
        return None, report

    monkeypatch.setattr(neo_async, "run", run)
    outcome = invoke("demo", "--json")
    assert outcome.exit_code == 1
    assert json.loads(outcome.stdout.splitlines()[0])["problems"] == report.problems
    assert f"neo-async demo: {report.problems[0]}" in outcome.everything
    assert "PROBLEMS" in "\n".join(_drawn(summary(report), 80))


async def _report(records: Records, *, bracket: BracketReport | None = None) -> Report:
    """Return the report of a run that sent nothing, against these records."""
    async with Exchange(seed=1) as exchange:
        demo_run = await _play(exchange)
        demo_run.bracket = bracket
        market = exchange.market
        listing = plan.choose_listings(market, [], 1)[0]
        for request in (
            plan.MALFORMED,
            plan.oversell(market, listing, 0),
            plan.stop_loss(market, listing),
        ):
            demo_run.orders.append(DemoOrder(request))
        return make_report(demo_run.results(), records)
