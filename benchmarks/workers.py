"""Processes of a benchmark: started on a core of their own, and driven by JSON lines.

`python -m benchmarks.workers MODULE:FUNCTION CORE ARGUMENTS` is such a process. It calls the
function with a `Channel` and the arguments, a JSON object. A process holds one peer, so that no
peer's imports, threads or garbage disturb another.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.harness import cores, pin

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
SERVER_SATURATED = 0.95
"""Share of its core from which on the server, not the peer, may limit the figure."""


class Cores(msgspec.Struct, frozen=True):
    """The cores of server and client; None leaves the choice to the system."""

    server: int | None
    client: int | None

    @classmethod
    def of_machine(cls) -> Cores:
        """Return two different cores, if this process may use two."""
        return cls(*cores())

    def settings(self) -> dict[str, int | None]:
        """Return the cores as fields of a benchmark's settings."""
        return {"server_core": self.server, "client_core": self.client}

    def conditions(self, rounds: int, seconds: float, warm_up: str = "one") -> str:
        """Return the line about rounds and cores that stands above the tables."""
        return (
            f"{rounds} alternating rounds of {seconds:g} s after {warm_up} to warm up; "
            f"server on core {self.server}, client on core {self.client}"
        )


def server_cell(share: float) -> str:
    """Format the server's share of its core, with "!" where it may limit the figure."""
    return f"{share:.0%}{'!' if share > SERVER_SATURATED else ''}"


class Channel:
    """The connection of a worker to the process that started it: JSON lines on stdin and stdout."""

    def __init__(self) -> None:
        # A peer's own output must not mix with the answers: the official SDK logs to stdout.
        self._answers, sys.stdout = sys.stdout, sys.stderr

    def send(self, answer: object) -> None:
        """Send one answer. The first one means that the worker is ready."""
        print(msgspec.json.encode(answer).decode(), file=self._answers, flush=True)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each command until the other process closes the connection."""
        for line in sys.stdin:
            yield msgspec.json.decode(line)

    def wait_for_end(self) -> None:
        """Block until the other process closes the connection."""
        sys.stdin.read()


class Worker:
    """A process that runs one function of the benchmarks, until this object is closed."""

    def __init__(self, target: str, core: int | None = None, **arguments: Any) -> None:
        """Start it, and wait until it is ready. `target` is a module of this package and its
        function, as in "peers:serve"; without a core, the worker may run where this process may."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        # The official SDK has no option for the authority to trust; its httpx reads this variable.
        trust = {"SSL_CERT_FILE": arguments["ca_file"]} if arguments.get("ca_file") else {}
        self.name = " ".join([target, str(arguments.get("name", ""))]).strip()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.workers", target),
                *(json.dumps(core), msgspec.json.encode(arguments).decode()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **trust},
        )
        self.ready = self._answer()

    def ask(self, **command: Any) -> Any:
        """Send one command, and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command).decode() + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early, with exit code {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def in_fresh_process(target: str, answer: type[T], core: int | None = None, **arguments: Any) -> T:
    """Run a function that sends one answer in a process of its own, and return that answer."""
    with Worker(target, core, **arguments) as worker:
        return msgspec.convert(worker.ready, answer)


def main() -> None:
    target, core, arguments = sys.argv[1:]
    pin(json.loads(core))
    module, _, function = target.partition(":")
    serve = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    serve(Channel(), **json.loads(arguments))


if __name__ == "__main__":
    main()
