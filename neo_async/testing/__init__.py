"""Help for tests of programs that trade: a clock that can be moved, and a loop in virtual time.

The fixtures of the pytest plugin are built on it; see docs/testing.md.
"""

from neo_async.testing.clock import Clock
from neo_async.testing.virtual_time import VirtualTimeLoop

__all__ = ["Clock", "VirtualTimeLoop"]
