"""Deliver credits batch by batch, and acknowledge each batch when its consumer is done with it.

The bank has one outstanding batch per physical account, and sends it again until it is
acknowledged. So a consumer that crashes loses nothing: the credits that were not done are delivered
again.

    consumer       takes 1 … 100    comes back ──┐
    here                                         └─ done ── acknowledge ── fetch ── 101 …
    a crash        anywhere before: the batch comes again; with a store only what was not done yet

A credit is delivered

* without a store: at least once. When the bank reports that it sends a batch again, its credits
  have `may_be_repeated`; a batch that the same object has delivered is not delivered again.
* with a store: exactly once, except the one credit (or whole batch) that was being processed when
  the process ended, which is delivered once more with `may_be_repeated`. See `store.py`.

The order is the bank's, and no credit is ever left out. Credits are distinguished by all of their
fields, because some banks give several payments one reference.

An entry that is not readable as a credit (a reversal of -1500.00, an amount of "N/A") raises
UnreadableCredit in its place, every time, until `Credits.skip` skips it. Until then its batch is
not acknowledged.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import msgspec

from neo_async.banking.answers import Delivery, DeliveryReader, Unread
from neo_async.banking.calls import BankCalls, new_key
from neo_async.banking.mapping import Json
from neo_async.banking.model import Credit, Refusal
from neo_async.banking.names import Call
from neo_async.banking.profile import AckMode
from neo_async.banking.store import LARGEST_SEQUENCE, CreditStore, Key
from neo_async.base import logs
from neo_async.errors import (
    BankRejected,
    ProtocolError,
    RateLimited,
    ServerError,
    TransportError,
    UnreadableCredit,
    UsageError,
)
from neo_async.transport.backoff import backoff

log = logging.getLogger(logs.BANKING)

_PASSING = (TransportError, ServerError, RateLimited)
"""Failures that only delay a consumer who polls."""

_REPEATS = 5
"""Most times in a row that a batch may come again after its acknowledgement was confirmed."""


class _Entry(msgspec.Struct, frozen=True):
    """An entry of a batch with its identity."""

    key: Key
    content: Credit | Unread


class Batch:
    """Credits to be acknowledged together.

    `async for batch in credits.batches()` acknowledges a batch when it continues with the next one;
    `await batch.ack()` does so earlier.
    """

    def __init__(
        self,
        source: BatchSource,
        delivery: Delivery,
        sent: Sequence[_Entry],
        new: list[_Entry],
    ) -> None:
        self._source = source
        self.batch_id = delivery.batch_id
        self.credits = [entry.content for entry in new if isinstance(entry.content, Credit)]
        """Credits to deliver, in the bank's order."""
        self.delivered = len(delivery.entries)
        """Number of credits the bank has sent with it, including those delivered earlier."""
        self.delivery_count = delivery.delivery_count
        """Number of times the bank has sent it; 1 when not reported."""
        self.sent = frozenset(entry.key for entry in sent)
        self.entries = new
        """Entries to deliver, unreadable ones included. Internal to Credits."""
        self.unread = [entry.content for entry in new if isinstance(entry.content, Unread)]
        """Unreadable entries that were not skipped yet. Internal to Credits."""
        self.ack_key = new_key()
        self.is_done = False
        """Whether its consumer has requested the next one."""
        self.is_acknowledged = False

    async def ack(self) -> None:
        """Mark every credit as done, and acknowledge the batch. Repeating it has no effect.

        Where acknowledgements are sent with the next request (`ack.mode`), this one is, too. Raises
        the errors of a request, and the batch is then sent again; UnreadableCredit while an
        unreadable entry is not skipped.
        """
        await self._source.finish(self)

    @property
    def keys(self) -> list[Key]:
        """Identities of the credits to deliver. Internal to Credits."""
        return [entry.key for entry in self.entries if isinstance(entry.content, Credit)]

    def check_read(self) -> None:
        """Raise UnreadableCredit while an unreadable entry is not skipped."""
        if self.unread:
            raise self.unread[0].error()

    def __iter__(self) -> Iterator[Credit]:
        return iter(self.credits)

    def __len__(self) -> int:
        return len(self.credits)

    def __repr__(self) -> str:
        state = "acknowledged" if self.is_acknowledged else "done" if self.is_done else "open"
        return f"<Batch {self.batch_id!r} of {len(self)}, {state}>"


class BatchSource:
    """Fetches and acknowledges batches, one at a time. Internal to Credits."""

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
        """Finish the previous batch, and return the next one with new credits; None when there is
        none."""
        while True:
            if self._last is not None:
                await self.finish(self._last)
            delivery = await self._fetch()
            if not delivery.entries:
                return None
            sent = _identified(delivery.entries)
            batch = Batch(self, delivery, sent, await self._new_ones(delivery, sent))
            self._check_for_standstill(batch)
            self._last = batch
            if batch.entries:
                return batch

    def skip(self, error: UnreadableCredit) -> None:
        """Skip an unreadable entry, as `Credits.skip` does."""
        unread = self._last.unread if self._last is not None else []
        if not unread or unread[0].entry != error.entry:
            raise UsageError("skip() takes the UnreadableCredit that was raised last")
        skipped = unread.pop(0)
        log.warning("unreadable credit %r is skipped: %s", skipped.reference, skipped.problem)

    async def finish(self, batch: Batch) -> None:
        """Mark the batch as done, and acknowledge it where that is a call of its own."""
        batch.check_read()  # an entry that the caller has not seen is never acknowledged
        if not batch.is_done:
            if self.store is not None and batch.credits:
                await self.store.finish(batch.keys)
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
            content = await self._calls.send_until_answered(self._calls.request(Call.FETCH, values))
        except BankRejected as refusal:
            if last is None or not carries_ack or refusal.refusal != Refusal.UNKNOWN_BATCH:
                raise
            _skip_acknowledgement(last, refusal)
            return await self._fetch()
        if last is not None and carries_ack:
            last.is_acknowledged = True
        return self._calls.read_content(self._read, content)

    def _read(self, content: Json) -> Delivery:
        delivery = self._reader.read(content)
        scrub = self._calls.secrets.scrub
        delivery.entries[:] = [
            Unread(entry.reference, scrub(entry.problem), scrub(entry.entry))
            if isinstance(entry, Unread)
            else entry
            for entry in delivery.entries
        ]
        return delivery

    async def _acknowledge(self, batch: Batch) -> None:
        values = {
            **self._envelope,
            "batch_id": batch.batch_id,
            "count": batch.delivered,
            "status": self._ack.value,
        }
        try:
            await self._calls.send_until_answered(
                self._calls.request(Call.ACK, values, key=batch.ack_key)
            )
        except BankRejected as refusal:
            if refusal.refusal != Refusal.UNKNOWN_BATCH:
                raise
            _skip_acknowledgement(batch, refusal)
        batch.is_acknowledged = True

    async def _new_ones(self, delivery: Delivery, sent: Sequence[_Entry]) -> list[_Entry]:
        """Return the entries that were not delivered before, each once."""
        past = self._last.sent if self._last is not None else frozenset()
        new = [entry for entry in sent if entry.key not in past]
        if self.store is None:
            return [_repeated(entry) for entry in new] if delivery.delivery_count > 1 else new
        known = await self.store.known([entry.key.reference for entry in new])
        left: list[_Entry] = []
        for entry in new:
            others = known.get(entry.key.reference, {})
            if others.get(entry.key, False):
                continue
            left.append(entry if entry.key.is_new_beside(others) else _repeated(entry))
        return left

    def _check_for_standstill(self, batch: Batch) -> None:
        last = self._last
        if last is None or batch.sent != last.sent:
            self._repeats = 0
            return
        self._repeats += 1
        if self._repeats > _REPEATS:
            raise ProtocolError(
                f"the bank keeps sending batch {batch.batch_id}, although it has confirmed "
                f"{self._repeats} acknowledgements of it"
            )


class Credits:
    """Credits in the bank's order: `async for credit in bank.transactions()`.

    Requesting the next credit marks the previous one as done. Leaving the loop does not: the
    present credit is delivered again, with `may_be_repeated`, unless `await credits.done()` was
    called. There can be one iteration at a time; a later one continues where the earlier one ended.
    """

    def __init__(self, source: BatchSource, *, poll: float | None) -> None:
        self._source = source
        self._poll = poll
        self._batch: Batch | None = None
        self._position = 0
        self._whole_batch: Batch | None = None
        """A fetched batch to deliver as a whole."""
        self._current: Key | None = None
        self.taken = 0
        """Number of credits delivered."""

    def __aiter__(self) -> Credits:
        return self

    async def __anext__(self) -> Credit:
        while True:
            while self._batch is None or self._position == len(self._batch.entries):
                self._batch = await self._following()
                self._position = 0
                if self._batch is None:
                    raise StopAsyncIteration
            entry = self._batch.entries[self._position]
            if isinstance(entry.content, Credit):
                return self._deliver(entry.key, entry.content)
            self._finish_current()
            if entry.content in self._batch.unread:
                raise entry.content.error()
            self._position += 1

    def _deliver(self, key: Key, credit: Credit) -> Credit:
        if (store := self._source.store) is not None:
            # No await from here on: no other task may run between the mark and the delivery.
            store.step(done=self._current, taken=key)
        self._current = key
        self._position += 1
        self.taken += 1
        return credit

    def skip(self, error: UnreadableCredit) -> None:
        """Skip the entry for which this error was raised, after you have examined it. It is not
        delivered, and its batch can be acknowledged. Iterate again to continue; `batches()` has to
        be called again.

        Raises UsageError when it is not the entry that blocks the iteration.
        """
        self._source.skip(error)

    async def done(self) -> None:
        """Mark the credit being processed as done, without requesting another. After the last
        credit of a batch, this acknowledges the batch."""
        self._finish_current()
        if self._batch is not None and self._batch.is_done:
            await self._batch.ack()

    async def batches(self) -> AsyncIterator[Batch]:
        """Iterate over whole batches; requesting the next one marks all of the previous one as
        done. After a failure, call it again to continue. Raises UnreadableCredit before a batch
        with an unreadable entry."""
        if self._batch is not None and self._position < len(self._batch.entries):
            raise UsageError("a batch was begun credit by credit: finish it in the same way")
        while True:
            if self._whole_batch is None:
                self._whole_batch = await self._next()
            batch = self._whole_batch
            if batch is None:
                return
            batch.check_read()
            if self._source.store is not None:
                await self._source.store.take(batch.keys)
            self._whole_batch = None
            self.taken += len(batch)
            yield batch

    def __repr__(self) -> str:
        return f"<Credits {self.taken} taken, {self._batch!r}>"

    async def _following(self) -> Batch | None:
        """Return the next batch, after the consumer has finished the present one."""
        self._finish_current()
        if self._whole_batch is not None:  # fetched by `batches()`, but not delivered
            batch, self._whole_batch = self._whole_batch, None
            return batch
        return await self._next()

    def _finish_current(self) -> None:
        if self._current is not None and self._source.store is not None:
            self._source.store.step(done=self._current, taken=None)
        self._current = None
        if self._batch is not None and self._position == len(self._batch.entries):
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
                log.warning("no credits received (%s); next try in %.0f s", error, wait)
                await asyncio.sleep(wait)
                continue
            if batch is not None or self._poll is None:
                return batch
            failures = 0
            await asyncio.sleep(self._poll)


def _skip_acknowledgement(batch: Batch, refusal: BankRejected) -> None:
    # Nothing is lost: the batch was acknowledged before, or is sent again.
    log.warning("batch %r no longer exists at the bank: %s", batch.batch_id, refusal)
    batch.is_acknowledged = True


def _repeated(entry: _Entry) -> _Entry:
    if not isinstance(entry.content, Credit):
        return entry
    return _Entry(entry.key, msgspec.structs.replace(entry.content, may_be_repeated=True))


def _identified(entries: Sequence[Credit | Unread]) -> list[_Entry]:
    """Return each entry of a batch once, with its identity. Of two equal entries, the second is a
    repetition if they have a sequence; otherwise it gets `may_be_repeated`."""
    found: list[_Entry] = []
    times: Counter[Credit | Unread] = Counter()
    for content in entries:
        earlier = times[content]
        times[content] += 1
        sequence = content.sequence if isinstance(content, Credit) else None
        if sequence is not None and abs(sequence) > LARGEST_SEQUENCE:
            sequence = None
        if earlier and sequence is not None:
            continue
        mark = hashlib.blake2b(msgspec.json.encode((content, earlier)), digest_size=8).digest()
        entry = _Entry(Key(content.reference, mark, sequence), content)
        found.append(_repeated(entry) if earlier else entry)
    return found
