"""How a program ends: by itself, or by a signal, with one line that says what stays open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import neo_async
from neo_async import NeoClient, Product, Segment, Side, UsageError

ROOT = Path(__file__).resolve().parents[1]
BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}

posix = pytest.mark.skipif(os.name != "posix", reason="Windows cannot send these signals")

BOT = """
    import asyncio, sys
    import neo_async
    from neo_async import NeoClient, Product, Segment, Side
    from neo_async.exchange import Exchange

    async def main():
        async with Exchange(seed=7, market_makers=False) as exchange:
            async with NeoClient(
                exchange.credentials, endpoints=exchange.endpoints, on_exit=sys.argv[1]
            ) as neo:
                for _ in range(4):
                    order = await neo.orders.place(
                        Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 1, price="39.00", product=Product.CNC
                    )
                await neo.orders.cancel(order)
                print("ready", flush=True)
                try:
                    await asyncio.sleep(60)
                finally:
                    print("closing", flush=True)
                    await {wait}

    neo_async.run(main())
"""


@contextlib.contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program up to the line `ready`."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line == "ready\n":
                    break
            yield process
        finally:
            process.kill()


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_the_program_and_one_line_says_what_is_open(
    number: signal.Signals, code: int
) -> None:
    with program(BOT.format(wait="asyncio.sleep(0)"), "leave") as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert out == "closing\n"
    assert err == (
        f"stopped by {number.name}: 3 orders are open at the broker: neo-async cancel --all\n"
    )
    assert process.returncode == code


@posix
def test_a_program_that_cancels_on_exit_leaves_nothing_open() -> None:
    with program(BOT.format(wait="asyncio.sleep(0)"), "cancel") as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert (err, process.returncode) == ("stopped by SIGTERM\n", 143)


@posix
def test_a_second_signal_ends_the_program_at_once() -> None:
    with program(BOT.format(wait="asyncio.sleep(60)"), "leave") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "closing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143


@posix
def test_handlers_of_the_program_are_left_alone() -> None:
    code = """
        import asyncio, os, signal
        import neo_async

        got = []
        signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))

        async def main():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            return got

        print(neo_async.run(main()) == [signal.SIGTERM])
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout == "True\nTrue\n"


@posix
def test_a_program_that_handles_the_cancellation_ends_as_it_likes() -> None:
    async def main() -> str:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "handled"
        return "not stopped"

    assert neo_async.run(main()) == "handled"


def test_without_uvloop_it_runs_on_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert neo_async.run(main()).startswith("asyncio.")


def test_beside_the_main_thread_no_signal_is_handled() -> None:
    results: list[bool] = []

    async def main() -> bool:
        return signal.getsignal(signal.SIGINT) is before

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: results.append(neo_async.run(main())))
    thread.start()
    thread.join()
    assert results == [True]


def test_an_error_of_the_program_is_raised() -> None:
    async def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        neo_async.run(main())

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        neo_async.run(cancelled())


async def test_inside_a_running_loop_it_says_what_to_write() -> None:
    async def main() -> None: ...

    with pytest.raises(UsageError, match=r"as it does in Jupyter.*write `await main\(\)` instead"):
        neo_async.run(main())


# --- what becomes of open orders --------------------------------------------------------------


def test_a_client_says_what_on_exit_may_be() -> None:
    with pytest.raises(UsageError, match=r"on_exit='flatten': must be 'leave' or 'cancel'"):
        NeoClient(neo_async.Credentials.from_env(ENVIRONMENT), on_exit="flatten")


ENVIRONMENT = {
    "NEO_CONSUMER_KEY": "k",
    "NEO_MOBILE_NUMBER": "+919876543210",
    "NEO_UCC": "ABC12",
    "NEO_MPIN": "070809",
}
