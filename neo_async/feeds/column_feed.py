"""The column feed: packets of one level as columns of numpy arrays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from neo_async.calendar import INDIA, Calendar
from neo_async.config import FeedTimings
from neo_async.errors import UsageError
from neo_async.feeds.buffers import MessageBuffer
from neo_async.feeds.subscribed_feed import KeyOf, SubscribedFeed
from neo_async.feeds.subscriptions import stream_of
from neo_async.model.enums import Level
from neo_async.model.instrument_names import known_key
from neo_async.model.instruments import InstrumentLike
from neo_async.session.manager import SessionManager
from neo_async.wire.columns import ColumnDecoder, Columns
from neo_async.wire.feed import LEVEL_OF_STREAM, Stream

COLUMNS = "columns"
"""Kind of the buffers of column feeds in `Meter.losses`."""


class ColumnFeed(SubscribedFeed):
    """Packets of one level as columns of numpy arrays: all that arrived since the last step.

        async with neo.column_feed(level=Level.LITE) as feed:
            await feed.subscribe(instruments)
            async for columns in feed:
                columns["token"], columns["last_price"]

    A slow consumer gets larger arrays. Beyond `bound` bytes the oldest messages are
    dropped, and counted in `lost`.
    """

    def __init__(
        self,
        session: SessionManager,
        timings: FeedTimings,
        *,
        level: Level | str = Level.LITE,
        bound: int = 64 << 20,
        market_open: Callable[[], bool] | None = None,
        calendar: Calendar = INDIA,
        key_of: KeyOf = known_key,
    ) -> None:
        super().__init__(session, timings, market_open, calendar, key_of)
        self.level = LEVEL_OF_STREAM[stream_of(level)]
        """The level at which instruments are subscribed."""
        self._columns = ColumnDecoder(self.level)
        self._messages = MessageBuffer(bound)
        session.meter.count_losses(self, COLUMNS, self._messages)
        self._asked = self._columns.keys([])
        """Keys of the subscribed instruments, for the column decoder."""
        self._asked_at = -1
        """The `changes` of the decoder at which `_asked` was made."""
        self._others = 0
        """Number of packets dropped while decoding, which the feed's own decoder does not see."""

    async def __aiter__(self) -> AsyncIterator[Columns]:
        self._check_iterable()
        while messages := await self._messages.take():
            if self._asked_at != self._decoder.changes:
                self._asked_at = self._decoder.changes
                self._asked = self._columns.keys(self._decoder.asked_keys())
            columns = self._columns.decode(messages, self._decoder.dividers, self._asked)
            self._manager.meter.ticks += len(columns)
            self._others += columns.unasked
            if len(columns):
                yield columns

    @property
    def unasked(self) -> int:
        """Number of packets and trading symbols that the server sent of instruments that are not
        subscribed: they are dropped."""
        return super().unasked + self._others

    async def close(self) -> None:
        """Disconnect; iteration ends when what is pending has been taken."""
        await super().close()
        self._messages.close()

    @property
    def lost(self) -> int:
        """Number of messages dropped because the consumer was slower."""
        return self._messages.lost

    def _checked_level(self, level: Level | str | None) -> Level:
        if level is None:
            return self.level
        level = LEVEL_OF_STREAM[stream_of(level)]
        if level is not self.level:
            raise UsageError(
                f"level={level.name}: this column feed has level {self.level.name}; open another "
                f"one with column_feed(level=Level.{level.name})"
            )
        return level

    def _split(
        self, stream: Stream, instruments: Iterable[InstrumentLike]
    ) -> tuple[list[str], list[str]]:
        names, indices = super()._split(stream, instruments)
        if indices:
            raise UsageError(
                f"instruments={indices[0]!r}: a column feed has no columns of indices; subscribe "
                "them on a market_feed()"
            )
        return names, indices

    def _deliver(self, message: bytes) -> None:
        self._messages.put(message)
