"""Credits: batch after batch, each acknowledged when its consumer has taken all of it.

The bank has one batch outstanding for a physical account, and sends it again until it is
acknowledged. So a consumer that dies loses nothing: what it had not come back for comes again.

    consumer       takes 1 … 100    comes back ──┐
    here                                         └─ done ── acknowledge ── fetch ── 101 …
    consumer dies  anywhere before: the batch comes again; with a store only what was not done yet

How often a credit reaches its consumer:

* Without a store at least once. What comes again because the bank sends a batch twice says so
  (`may_be_repeated`), as far as the bank does; a batch that this very object has handed over is
  known, and not handed over again.
* With a store exactly once, but for one credit (or one batch, where batches are taken as such) that
  was in the consumer's hands when its process died: that one comes once more, and says so. See
  `store.py`.

Always in the bank's order, and no credit is ever left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping

import msgspec

from neo_async.banking.answers import Delivery, DeliveryReader
from neo_async.banking.calls import BankCalls, new_key
from neo_async.banking.model import Credit, Refusal
from neo_async.banking.names import Call
from neo_async.banking.profile import AckMode
from neo_async.banking.store import CreditStore
from neo_async.errors import (
    BankRejected,
    ProtocolError,
    RateLimited,
    ServerError,
    TransportError,
)
from neo_async.transport.backoff import backoff

log = logging.getLogger(__name__)

_PASSING = (TransportError, ServerError, RateLimited)
"""What a consumer who waits for more is not bothered with."""

_REPEATS = 5
"""Times in a row that a batch may come again after its acknowledgement was confirmed."""


class Batch:
    """Credits to be acknowledged together.

    `async for batch in credits.batches()` acknowledges when it is asked for the next one;
    `await batch.ack()` does so earlier.
    """

    def __init__(self, source: BatchSource, delivery: Delivery, new: list[Credit]) -> None:
        self._source = source
        self.batch_id = delivery.batch_id
        self.credits = new
        """Those of the batch that are to be handed over, in the bank's order."""
        self.delivered = len(delivery.credits)
        """How many the bank has sent with it, those included that were handed over earlier."""
        self.delivery_count = delivery.delivery_count
        """Times the bank has sent it; 1 when it does not say."""
        self.references = frozenset(credit.reference for credit in delivery.credits)
        self.ack_key = new_key()
        self.is_done = False
        """Whether its consumer has come back."""
        self.is_acknowledged = False

    async def ack(self) -> None:
        """Count every credit as done, and tell the bank that the batch has arrived. Doing it twice
        does nothing more.

        Where the acknowledgement goes out with the next request (`ack.mode`), so does this one.
        Raises what a call to the bank can; the batch comes again then.
        """
        await self._source.finish(self)

    def __iter__(self) -> Iterator[Credit]:
        return iter(self.credits)

    def __len__(self) -> int:
        return len(self.credits)

    def __repr__(self) -> str:
        state = "acknowledged" if self.is_acknowledged else "done" if self.is_done else "open"
        return f"<Batch {self.batch_id!r} of {len(self)}, {state}>"


class BatchSource:
    """For Credits: fetches and acknowledges, one batch at a time."""

    def __init__(
        self, calls: BankCalls, envelope: Mapping[str, object], store: CreditStore | None
    ) -> None:
        self._calls = calls
        self._envelope = envelope
        self._reader = DeliveryReader(calls.profile, calls.formats)
        self._ack = calls.profile.ack
        self.store = store
        self._last: Batch | None = None
        self._repeats = 0

    async def next(self) -> Batch | None:
        """Finish the batch before, and fetch one with something new in it; None when there is
        none."""
        while True:
            if self._last is not None:
                await self.finish(self._last)
            delivery = await self._fetch()
            if not delivery.credits:
                return None
            batch = Batch(self, delivery, await self._new_ones(delivery))
            self._check_for_standstill(batch)
            self._last = batch
            if batch.credits:
                return batch

    async def finish(self, batch: Batch) -> None:
        if not batch.is_done:
            if self.store is not None and batch.credits:
                await self.store.finish(credit.reference for credit in batch.credits)
            batch.is_done = True
        if not batch.is_acknowledged and self._ack.mode is AckMode.SEPARATE_CALL:
            await self._acknowledge(batch)

    async def _fetch(self) -> Delivery:
        values = {**self._envelope, "cursor": None}
        last = self._last
        carries_ack = last is not None and not last.is_acknowledged
        if last is not None and carries_ack:
            values |= {
                "ack_batch_id": last.batch_id,
                "ack_count": last.delivered,
                "ack_status": self._ack.value,
            }
        try:
            content = await self._calls.repeated(self._calls.request(Call.FETCH, values))
        except BankRejected as refusal:
            if last is None or not carries_ack or refusal.refusal != Refusal.UNKNOWN_BATCH:
                raise
            _forgotten(last, refusal)
            return await self._fetch()
        if last is not None and carries_ack:
            last.is_acknowledged = True
        return self._reader.read(content)

    async def _acknowledge(self, batch: Batch) -> None:
        values = {
            **self._envelope,
            "batch_id": batch.batch_id,
            "count": batch.delivered,
            "status": self._ack.value,
        }
        try:
            await self._calls.repeated(self._calls.request(Call.ACK, values, key=batch.ack_key))
        except BankRejected as refusal:
            if refusal.refusal != Refusal.UNKNOWN_BATCH:
                raise
            _forgotten(batch, refusal)
        batch.is_acknowledged = True

    async def _new_ones(self, delivery: Delivery) -> list[Credit]:
        """Those that were not handed over before, each once."""
        new = list({credit.reference: credit for credit in delivery.credits}.values())
        if self._last is not None:
            past = self._last.references
            new = [credit for credit in new if credit.reference not in past]
        if self.store is None:
            if delivery.delivery_count < 2:
                return new
            return [_repeated(credit) for credit in new]
        if not new:
            return []
        known = await self.store.known([credit.reference for credit in new])
        return [
            _repeated(credit) if credit.reference in known else credit
            for credit in new
            if not known.get(credit.reference, False)
        ]

    def _check_for_standstill(self, batch: Batch) -> None:
        last = self._last
        if last is None or batch.references != last.references:
            self._repeats = 0
            return
        self._repeats += 1
        if self._repeats > _REPEATS:
            raise ProtocolError(
                f"the bank sends batch {batch.batch_id} again and again, though it has taken "
                f"{self._repeats} acknowledgements of it"
            )


class Credits:
    """Credits in the bank's order: `async for credit in bank.transactions()`.

    Coming back for the next credit says that the one before is done. Leaving the loop does not:
    the credit in hand comes again, with `may_be_repeated`; `await credits.done()` before leaving
    says that it is done, too. One iteration at a time; it can be taken up again where it was left.
    """

    def __init__(self, source: BatchSource, *, poll: float | None) -> None:
        self._source = source
        self._poll = poll
        self._batch: Batch | None = None
        self._place = 0
        self._in_hand: str | None = None
        self.taken = 0
        """Credits handed over so far."""

    def __aiter__(self) -> Credits:
        return self

    async def __anext__(self) -> Credit:
        while self._batch is None or self._place == len(self._batch.credits):
            self._batch = await self._following()
            self._place = 0
            if self._batch is None:
                raise StopAsyncIteration
        credit = self._batch.credits[self._place]
        if (store := self._source.store) is not None:
            # No await from here on: nothing can come between the mark and the handing over.
            store.step(done=self._in_hand, taken=credit.reference)
        self._in_hand = credit.reference
        self._place += 1
        self.taken += 1
        return credit

    async def done(self) -> None:
        """Say that the credit in hand is done, without taking another. That of the last credit of a
        batch acknowledges the batch."""
        self._put_down()
        if self._batch is not None and self._batch.is_done:
            await self._batch.ack()

    async def batches(self) -> AsyncIterator[Batch]:
        """Whole batches; asking for the next one says that all of the one before is done. After a
        failure, call it again to go on."""
        while (batch := await self._next()) is not None:
            if self._source.store is not None:
                await self._source.store.take(credit.reference for credit in batch)
            self.taken += len(batch)
            yield batch

    def __repr__(self) -> str:
        return f"<Credits {self.taken} taken, {self._batch!r}>"

    async def _following(self) -> Batch | None:
        """The batch is at its end, and its consumer has come back."""
        self._put_down()
        return await self._next()

    def _put_down(self) -> None:
        if self._in_hand is not None and self._source.store is not None:
            self._source.store.step(done=self._in_hand, taken=None)
        self._in_hand = None
        if self._batch is not None and self._place == len(self._batch.credits):
            self._batch.is_done = True

    async def _next(self) -> Batch | None:
        failures = 0
        while True:
            try:
                batch = await self._source.next()
            except _PASSING as error:
                if self._poll is None:
                    raise
                failures += 1
                wait = self._poll + backoff(failures, base=1.0, cap=60.0)
                if isinstance(error, RateLimited) and error.retry_after:
                    wait = max(wait, error.retry_after)
                log.warning("no credits could be had (%s); next try in %.0f s", error, wait)
                await asyncio.sleep(wait)
                continue
            if batch is not None or self._poll is None:
                return batch
            failures = 0
            await asyncio.sleep(self._poll)


def _forgotten(batch: Batch, refusal: BankRejected) -> None:
    # Nothing is lost by that: it has arrived, or comes again.
    log.warning("the bank knows no batch %s any more: %s", batch.batch_id, refusal)
    batch.is_acknowledged = True


def _repeated(credit: Credit) -> Credit:
    return msgspec.structs.replace(credit, may_be_repeated=True)
