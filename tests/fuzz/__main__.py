"""Tries as many spoiled payloads as time allows, and says what came of them.

python -m tests.fuzz ["order book" ...] --inputs 100000 --seconds 60 --seed 1
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import traceback
from collections import Counter
from time import perf_counter

from tests.fuzz.mutations import spoiled
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.running import Fault, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(READERS))
    parser.add_argument("--inputs", type=int, default=10_000, help="for each reader")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := [name for name in options.readers if name not in READERS]:
        parser.error(f"no reader {unknown}: there are {', '.join(READERS)}")
    logging.disable(logging.CRITICAL)
    faults = [
        _try(READERS[name], options.inputs, options.seconds, options.seed)
        for name in options.readers or READERS
    ]
    return 1 if any(faults) else 0


def _try(reader: Reader, inputs: int, seconds: float, seed: int) -> int:
    rng = random.Random(f"{seed}|{reader.name}")
    payloads = reader.seeds
    outcomes: Counter[str] = Counter()
    slowest, slowest_size, size, faults = 0.0, 0, 0, 0
    end = perf_counter() + seconds
    tried = 0
    while tried < inputs and perf_counter() < end:
        body = spoiled(payloads, rng)
        tried += 1
        size += len(body)
        try:
            outcome, took = run(reader, body)
        except Fault as fault:
            faults += 1
            if faults <= 3:
                print(f"FAULT {fault}", file=sys.stderr)
                traceback.print_exception(fault.__cause__, limit=-3, file=sys.stderr)
            continue
        outcomes[outcome or "read"] += 1
        if took > slowest:
            slowest, slowest_size = took, len(body)
    found = ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common())
    print(
        f"{reader.name:26} {tried:>11,} inputs {size / (1 << 20):>8,.0f} MiB  slowest "
        f"{slowest * 1000:6.1f} ms of {slowest_size:,} bytes  {found}"
        f"{f', FAULTS {faults:,}' if faults else ''}",
        flush=True,
    )
    return faults


if __name__ == "__main__":
    sys.exit(main())
