"""An outcome that is not known yet, shared by everyone who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    """An outcome, for any number of waiters. Awaiting it returns the result or raises the error.

    A waiter that is cancelled, or times out, leaves the outcome to the others.
    """

    __slots__ = ("_outcome", "deadline")

    def __init__(self, *, deadline: float) -> None:
        self.deadline = deadline
        """Loop time by which the outcome is expected. It may be moved while callers wait."""
        self._outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # An error that no caller awaits is not "never retrieved": it has been logged already.
        self.on_done(lambda: self._outcome.cancelled() or self._outcome.exception())

    @property
    def is_done(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome.done()

    def resolve(self, result: T) -> None:
        """Set the result. Only once, and not after `fail`."""
        self._outcome.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Set the error that every waiter gets. Only once, and not after `resolve`."""
        self._outcome.set_exception(error)

    def on_done(self, listener: Callable[[], object]) -> None:
        """Call `listener` soon after the outcome is known, whatever it is."""
        self._outcome.add_done_callback(lambda _: listener())

    async def wait(self, patience: float = 0.0) -> bool:
        """Wait until `patience` seconds after the deadline at most. Return whether it is done."""
        loop = asyncio.get_running_loop()
        while not self._outcome.done():
            rest = self.deadline + patience - loop.time()
            if rest <= 0:
                return False
            await asyncio.wait([self._outcome], timeout=rest)
        return True

    def __await__(self) -> Generator[Any, None, T]:
        # Without the shield, a waiter that is cancelled would cancel the outcome for all.
        return asyncio.shield(self._outcome).__await__()
