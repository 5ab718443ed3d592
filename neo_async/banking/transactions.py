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

Always in the bank's order, and no credit is ever left out. Credits are distinguished by all of
their fields, for there are banks that give several payments one reference.

An entry that cannot be read as a credit (a reversal of -1500.00, an amount of "N/A") raises
UnreadableCredit in its place, again and again: `Credits.skip` steps over it. Until then its batch
is not acknowledged.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import msgspec

from neo_async import logs
from neo_async.banking.answers import Delivery, DeliveryReader, Unread
from neo_async.banking.calls import BankCalls, new_key
from neo_async.banking.mapping import Json
from neo_async.banking.model import Credit, Refusal
from neo_async.banking.names import Call
from neo_async.banking.profile import AckMode
from neo_async.banking.store import LARGEST_SEQUENCE, CreditStore, Key
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
"""What a consumer who waits for more is not bothered with."""

_REPEATS = 5
"""Times in a row that a batch may come again after its acknowledgement was confirmed."""


class _Entry(msgspec.Struct, frozen=True):
    """An entry of a batch, and what it is recognised by when it comes again."""

    key: Key
    content: Credit | Unread


class Batch:
    """Credits to be acknowledged together.

    `async for batch in credits.batches()` acknowledges when it is asked for the next one;
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
        """Those of the batch that are to be handed over, in the bank's order."""
        self.delivered = len(delivery.entries)
        """How many the bank has sent with it, those included that were handed over earlier."""
        self.delivery_count = delivery.delivery_count
        """Times the bank has sent it; 1 when it does not say."""
        self.sent = frozenset(entry.key for entry in sent)
        self.entries = new
        """For Credits: all that is to be handed over, what cannot be read included."""
        self.unread = [entry.content for entry in new if isinstance(entry.content, Unread)]
        """For Credits: what cannot be read and was not stepped over yet."""
        self.ack_key = new_key()
        self.is_done = False
        """Whether its consumer has come back."""
        self.is_acknowledged = False

    async def ack(self) -> None:
        """Count every credit as done, and tell the bank that the batch has arrived. Doing it twice
        does nothing more.

        Where the acknowledgement goes out with the next request (`ack.mode`), so does this one.
        Raises what a call to the bank can, and the batch comes again then; UnreadableCredit while
        there is an entry that was not stepped over.
        """
        await self._source.finish(self)

    @property
    def keys(self) -> list[Key]:
        """For Credits: of those that are to be handed over."""
        return [entry.key for entry in self.entries if isinstance(entry.content, Credit)]

    def check_read(self) -> None:
        """Raises UnreadableCredit while there is an entry that was not stepped over."""
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
            if not delivery.entries:
                return None
            sent = _told_apart(delivery.entries)
            batch = Batch(self, delivery, sent, await self._new_ones(delivery, sent))
            self._check_for_standstill(batch)
            self._last = batch
            if batch.entries:
                return batch

    def skip(self, error: UnreadableCredit) -> None:
        """As `Credits.skip`."""
        unread = self._last.unread if self._last is not None else []
        if not unread or unread[0].entry != error.entry:
            raise UsageError("skip() takes the UnreadableCredit that was raised last")
        skipped = unread.pop(0)
        log.warning("credit %r is stepped over unread: %s", skipped.reference, skipped.problem)

    async def finish(self, batch: Batch) -> None:
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
            content = await self._calls.repeated(self._calls.request(Call.FETCH, values))
        except BankRejected as refusal:
            if last is None or not carries_ack or refusal.refusal != Refusal.UNKNOWN_BATCH:
                raise
            _forgotten(last, refusal)
            return await self._fetch()
        if last is not None and carries_ack:
            last.is_acknowledged = True
        return self._calls.understood(self._read, content)

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
            await self._calls.repeated(self._calls.request(Call.ACK, values, key=batch.ack_key))
        except BankRejected as refusal:
            if refusal.refusal != Refusal.UNKNOWN_BATCH:
                raise
            _forgotten(batch, refusal)
        batch.is_acknowledged = True

    async def _new_ones(self, delivery: Delivery, sent: Sequence[_Entry]) -> list[_Entry]:
        """Those that were not handed over before, each once."""
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
        self._whole: Batch | None = None
        """A batch that is to be handed over as such."""
        self._in_hand: Key | None = None
        self.taken = 0
        """Credits handed over so far."""

    def __aiter__(self) -> Credits:
        return self

    async def __anext__(self) -> Credit:
        while True:
            while self._batch is None or self._place == len(self._batch.entries):
                self._batch = await self._following()
                self._place = 0
                if self._batch is None:
                    raise StopAsyncIteration
            entry = self._batch.entries[self._place]
            if isinstance(entry.content, Credit):
                return self._handed_over(entry.key, entry.content)
            self._put_down()
            if entry.content in self._batch.unread:
                raise entry.content.error()
            self._place += 1

    def _handed_over(self, key: Key, credit: Credit) -> Credit:
        if (store := self._source.store) is not None:
            # No await from here on: nothing can come between the mark and the handing over.
            store.step(done=self._in_hand, taken=key)
        self._in_hand = key
        self._place += 1
        self.taken += 1
        return credit

    def skip(self, error: UnreadableCredit) -> None:
        """Step over the entry that this error was raised for: the caller has looked into it. It is
        not handed over, and its batch can be acknowledged. Iterate again to go on; `batches()` has
        to be called again.

        Raises UsageError when it is not the entry that stands in the way.
        """
        self._source.skip(error)

    async def done(self) -> None:
        """Say that the credit in hand is done, without taking another. That of the last credit of a
        batch acknowledges the batch."""
        self._put_down()
        if self._batch is not None and self._batch.is_done:
            await self._batch.ack()

    async def batches(self) -> AsyncIterator[Batch]:
        """Whole batches; asking for the next one says that all of the one before is done. After a
        failure, call it again to go on. Raises UnreadableCredit before it hands over a batch with
        an entry that cannot be read."""
        if self._batch is not None and self._place < len(self._batch.entries):
            raise UsageError("a batch was begun credit by credit: take the rest of it so, too")
        while True:
            if self._whole is None:
                self._whole = await self._next()
            batch = self._whole
            if batch is None:
                return
            batch.check_read()
            if self._source.store is not None:
                await self._source.store.take(batch.keys)
            self._whole = None
            self.taken += len(batch)
            yield batch

    def __repr__(self) -> str:
        return f"<Credits {self.taken} taken, {self._batch!r}>"

    async def _following(self) -> Batch | None:
        """The batch is at its end, and its consumer has come back."""
        self._put_down()
        if self._whole is not None:  # fetched by `batches()`, but not handed over
            batch, self._whole = self._whole, None
            return batch
        return await self._next()

    def _put_down(self) -> None:
        if self._in_hand is not None and self._source.store is not None:
            self._source.store.step(done=self._in_hand, taken=None)
        self._in_hand = None
        if self._batch is not None and self._place == len(self._batch.entries):
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
    log.warning("the bank knows no batch %r any more: %s", batch.batch_id, refusal)
    batch.is_acknowledged = True


def _repeated(entry: _Entry) -> _Entry:
    if not isinstance(entry.content, Credit):
        return entry
    return _Entry(entry.key, msgspec.structs.replace(entry.content, may_be_repeated=True))


def _told_apart(entries: Sequence[Credit | Unread]) -> list[_Entry]:
    """Each entry of a batch once. Two that are equal in everything are one that was sent twice
    where the bank's sequence says so; else the second one says `may_be_repeated`."""
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
