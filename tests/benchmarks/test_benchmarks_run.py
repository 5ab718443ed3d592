"""The benchmarks run at tiny size and yield the keys that their README promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness, limiter

ROOT = Path(__file__).resolve().parents[2]
PEERS = {"socket", "neo_async", "aiohttp_tuned", "aiohttp_default", "httpx", "kotakneoapi"}
FIGURE = {"median", "low", "high", "rounds"}
TINY = ("--json", "--rounds", "1")
TINY_ORDERS = (*TINY, "--seconds", "0.02", "--skip-limiter")


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_figure(figure: dict[str, float]) -> None:
    assert figure.keys() == FIGURE
    assert 0 < figure["low"] <= figure["median"] <= figure["high"]


def assert_measured(peer: dict[str, Any]) -> None:
    assert peer.keys() == {"figure", "cpu_us", "server_busy", "p99_us"}
    assert_figure(peer["figure"])
    assert_figure(peer["cpu_us"])


def test_orders_measures_every_peer_one_and_many_in_flight() -> None:
    result = json.loads(run("orders", *TINY_ORDERS, "--no-tls"))

    assert result["benchmark"] == "orders"
    assert result["limiter"] is None
    for measure in ("one_in_flight", "many_in_flight"):
        assert result[measure].keys() == {"tcp"}
        assert result[measure]["tcp"].keys() == PEERS
        for peer in result[measure]["tcp"].values():
            assert_measured(peer)
    assert len(result["wanted"]) == 4
    assert all(
        figure.keys() == {"measure", "wanted", "measured", "unit", "reached", "note"}
        for figure in result["wanted"]
    )


def test_orders_measures_over_tls_too() -> None:
    peers = ("socket", "neo_async", "kotakneoapi")
    result = json.loads(run("orders", *TINY_ORDERS, "--peers", *peers))

    assert result["one_in_flight"].keys() == result["many_in_flight"].keys() == {"tcp", "tls"}
    for peer in peers:
        assert_measured(result["one_in_flight"]["tls"][peer])
        assert_measured(result["many_in_flight"]["tls"][peer])


def test_orders_prints_a_table_for_each_measure_and_transport() -> None:
    output = run("orders", *TINY_ORDERS[1:], "--no-tls", "--peers", "socket", "aiohttp_tuned")

    assert output.count("| tcp ") == 2
    assert output.count("| aiohttp_tuned ") == 2


def test_journal_measures_what_it_costs_beside_a_client_without_one() -> None:
    result = json.loads(run("journal", *TINY, "--seconds", "0.05"))

    assert result["clients"].keys() == {"neo_async", "journal", "journal_power"}
    for client in result["clients"].values():
        for figure in client.values():
            assert_figure(figure)
    assert result["costs"].keys() >= {"mean_us", "median_us", "p99_us", "cpu_us"}
    assert [figure["unit"] for figure in result["wanted"]] == [*3 * ["µs"], "orders/s"]


def test_growth_compares_a_large_past_with_a_small_one_in_every_case() -> None:
    result = json.loads(run("growth", "--json", "--quick"))

    assert result["benchmark"] == "growth"
    assert result["cases"].keys() == {"session", "starts", "pool", "lost", "login"}
    for case in result["cases"].values():
        for figure in ("large", "small", "ratio", "held_ms"):
            assert_figure(case[figure])
    assert [figure["unit"] for figure in result["wanted"]] == ["×", "×", "×", "×", "ms"]


def test_growth_prints_a_row_for_each_case() -> None:
    output = run("growth", "--quick", "--only", "session", "login")

    assert "| large | small | ratio |" in " ".join(output.split())
    assert output.count("| an order after 2,000 orders of the session and after 100 ") == 2
    assert output.count("| a start with 2,000 rows in the journal and with 200 ") == 1


FEED_PEERS = {
    "bare_loop",
    "neo_async",
    "neo_async_block",
    "neo_async_batches",
    "neo_async_callback",
    "kotakneoapi",
}


def test_feed_measures_every_peer_at_every_level_and_all_else_about_streams() -> None:
    result = json.loads(
        run("feed", *TINY, "--seconds", "0.02", "--minutes", "0.05", "--drops", "1")
    )

    assert result["benchmark"] == "feed"
    assert result["lite"].keys() == FEED_PEERS | {"bare_structs"}
    assert result["depth"].keys() == FEED_PEERS
    assert result["columns"].keys() == {"columns"}
    for level in ("lite", "depth", "columns"):
        for peer in result[level].values():
            assert peer.keys() == {"figure", "cpu_us", "lost", "server_busy"}
            assert_figure(peer["figure"])
    assert result["lite"]["neo_async_block"]["lost"] == 0
    assert result["latency"]["with ticks"][0]["ticks_a_second"] > 0
    assert result["memory"]["decoded"] > result["memory"]["received"] > 0
    # What the consumer is at, and the newest of each instrument since.
    assert result["memory"]["most_pending"] <= 2 * 3001
    assert result["reconnect"]["subscribed"] == [3000]
    assert result["reconnect"]["subscribe_frames"] == [1]


def test_feed_leaves_out_what_was_not_asked_for() -> None:
    result = json.loads(run("feed", *TINY, "--seconds", "0.01", "--only", "columns"))

    assert result["lite"] == result["depth"] == result["latency"] == {}
    assert result["memory"] is result["reconnect"] is None
    assert [figure["unit"] for figure in result["wanted"]] == ["ticks/s"]


def test_exchange_measures_orders_that_rest_and_trade_with_and_without_a_state_file() -> None:
    result = json.loads(run("exchange", *TINY, "--seconds", "0.05", "--clients", "3"))

    assert result["benchmark"] == "exchange"
    scenes = ("resting", "trading", "resting, state file", "trading, state file")
    assert result["orders"].keys() == {*scenes, "trading, feeds open"}
    for measured in result["orders"].values():
        for name in ("orders_per_second", "p50_ms", "p99_ms"):
            assert_figure(measured[name])
    assert result["orders"]["trading, feeds open"]["messages_per_second"]["low"] > 0
    assert [figure["unit"] for figure in result["wanted"]] == ["orders/s"] * 4 + ["clients"]


def test_imports_measures_time_and_memory_of_every_statement() -> None:
    result = json.loads(run("imports", *TINY))

    assert result["benchmark"] == "imports"
    assert result["imports"].keys() == {"interpreter", "neo_async", "neo_client", "kotakneoapi"}
    for one in result["imports"].values():
        assert_figure(one["milliseconds"])
        assert_figure(one["peak_mib"])
    assert len(result["wanted"]) == 4


def test_the_fullest_second_is_found_wherever_it_begins() -> None:
    assert limiter.most_in_a_second([0.0, 0.9, 1.0, 1.5, 1.8, 1.89, 3.0]) == 5


def test_banking_drains_every_way_and_watches_memory() -> None:
    result = json.loads(run("banking", *TINY, "--credits", "300"))

    assert result["benchmark"] == "banking"
    assert result["peers"].keys() == {"bare", *result["memory"]}
    for peer in result["peers"].values():
        assert_figure(peer["figure"])
        assert_figure(peer["cpu_us"])
    assert all(len(sample["resident_mib"]) > 1 for sample in result["memory"].values())
    assert len(result["wanted"]) == 5


def test_a_window_does_not_hold_both_its_ends() -> None:
    assert limiter.most_in_a_second([0.0, 1.0, 2.0]) == 1


def test_the_opening_burst_does_not_flatter_the_sustained_rate() -> None:
    bursts_of_ten = [float(second) for second in range(11) for _ in range(10)]
    evenly = [index / 10 for index in range(110)]

    assert limiter.sustained_rate(bursts_of_ten, burst=10) == pytest.approx(10.0)
    assert limiter.sustained_rate(evenly, burst=10) == pytest.approx(10.0)


def test_rounds_alternate_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    assert harness.alternate(["a", "b"], measure, rounds=2) == {"a": [3, 5], "b": [4, 6]}
    assert order == ["a", "b"] * 3


def test_the_bounds_of_a_wanted_figure_count_as_reached() -> None:
    assert harness.at_most("time", 2.5, 2.5).reached
    assert not harness.at_most("time", 2.5, 2.51).reached
    assert harness.at_least("pace", 20, 20).reached
    assert not harness.at_least("pace", 20, 19.9).reached
