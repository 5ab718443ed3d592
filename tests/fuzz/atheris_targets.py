"""Coverage-guided inputs for one reader, where Atheris is installed (it is no dependency).

python -m tests.fuzz.atheris_targets "order book" [options of libFuzzer]
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any


def main() -> None:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris, or python -m tests.fuzz")
    with atheris.instrument_imports(include=["neo_async"]):
        from tests.fuzz.readers import READERS
        from tests.fuzz.running import run
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in READERS:
        sys.exit(f"no reader {name!r}: there are {', '.join(READERS)}")
    reader = READERS[name]
    reader.read(reader.seeds[0])  # what is made once is made before the first input
    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda body: run(reader, body))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
