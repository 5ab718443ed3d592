"""Every reader of what others wrote, with the errors that it documents and valid payloads."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from neo_async.banking import BankingProfile
from neo_async.banking.answers import DeliveryReader, RefundReader, Refusals, StateReader
from neo_async.banking.mapping import Formats
from neo_async.banking.names import Call as BankCall
from neo_async.errors import AnswerLost, NeoError, NotSent, UsageError
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Refusal
from neo_async.exchange.faults.settings import read_faults
from neo_async.exchange.feeds.order_feed import read_handshake
from neo_async.exchange.persistence.store import Store
from neo_async.exchange.rest.requests import read_place
from neo_async.execution.journal import Journal
from neo_async.kite import wire as kite
from neo_async.kite.fund_file import FundFileReader
from neo_async.market_data.market import _ROWS_AT_ONCE
from neo_async.model.answer import Answer
from neo_async.model.enums import Level
from neo_async.transport.connection import Connection
from neo_async.transport.hidden import Hidden
from neo_async.wire.answers import failure
from neo_async.wire.candles import read_candle_rows, read_candles
from neo_async.wire.chains import read_expiries, read_futures, read_options
from neo_async.wire.columns import ColumnDecoder
from neo_async.wire.feed import FeedDecoder, read_control
from neo_async.wire.instrument_file import _MAGIC, _PREFIX, BadFile, InstrumentFileReader
from neo_async.wire.login import read_login
from neo_async.wire.order_feed import read_message
from neo_async.wire.orders import read_accepted
from neo_async.wire.portfolio import read_holdings, read_limits, read_margin, read_positions
from neo_async.wire.quotes import read_quotes
from neo_async.wire.recording import _BLOCK, _COVERED, FILE_HEADER, read_recording
from neo_async.wire.reports import read_history, read_order_book, read_trades
from neo_async.wire.scripmaster import ScripMasterReader, read_file_list
from tests.fuzz.seeds import seeds

TODAY: Final = date(2026, 11, 23)


class Reader(NamedTuple):
    name: str
    read: Callable[[bytes], object]
    """Reads all of it. What it returns is iterated over: then only a step holds the loop."""
    payloads: tuple[str, ...]
    """Names of valid ones in `seeds`."""
    errors: tuple[type[Exception], ...] = (NeoError,)
    """Those that it documents; any other is a fault."""
    on_loop: bool = True
    """Whether it runs on the event loop of a client that trades."""

    @property
    def seeds(self) -> list[bytes]:
        found = [body for name in self.payloads for body in seeds().get(name, ())]
        return found or [b""]


def _answer(read: Callable[[Answer], object]) -> Callable[[bytes], object]:
    """The reader of an answer: the first byte decides its status, so that errors are read, too."""

    def reading(body: bytes) -> object:
        status = 200 if not body or body[-1:] in b"}]\n" else (200, 400, 401, 429, 500)[body[0] % 5]
        return read(Answer(status, {"content-type": "application/json"}, body))

    return reading


def _error(answer: Answer) -> object:
    return str(failure(msgspec.structs.replace(answer, status=400)))


def _candles(answer: Answer) -> Iterator[None]:
    """In the portions in which the client reads them."""
    rows = read_candle_rows(answer)
    yield
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        read_candles(rows[start : start + _ROWS_AT_ONCE], [])
        yield


# --- the market feed ------------------------------------------------------------------------------


def _ticks(message: bytes) -> object:
    return FeedDecoder().decode(message, 0)


def _asked_ticks(message: bytes) -> object:
    decoder = FeedDecoder(only_asked=True)
    decoder.ask([*(f"nse_cm|{token}" for token in range(100)), "nse_cm|Nifty 50"])
    ticks = decoder.decode(message, 0)
    assert sum(map(len, decoder._listed.values())) <= len(decoder._asked or ())
    return ticks


_COLUMNS: Final = [ColumnDecoder(level) for level in (Level.LITE, Level.SCRIP, Level.DEPTH)]


def _columns(message: bytes) -> object:
    for decoder in _COLUMNS:
        columns = decoder.decode([message, message[:-1]], {1: 100, -9: 10**12})
        for name in columns.names:
            columns[name]
    return None


def _control(text: bytes) -> object:
    control = read_control(text)
    decoder = FeedDecoder(only_asked=True)
    decoder.set_exchanges(control)
    decoder.set_symbols(control.symbols)
    return control.text


def _handshake(text: bytes) -> object:
    return read_handshake(text.decode("utf-8", "replace"))


# --- files ----------------------------------------------------------------------------------------


def _scrip_master(content: bytes) -> Iterator[None]:
    reader = ScripMasterReader(TODAY)
    yield from reader.feed_in_steps(content)
    reader.finish()


def _funds(content: bytes) -> Iterator[None]:
    reader = FundFileReader()
    yield from reader.feed(content)
    reader.finish()


def _instrument_file(content: bytes) -> Iterator[None]:
    yield from InstrumentFileReader(content).blocks()


def _resealed_instrument_file(content: bytes) -> Iterator[None]:
    """With checksums that are right again, as whoever wrote the file would have made them."""
    made, at = bytearray(_MAGIC), len(_MAGIC)
    while at + _PREFIX.size <= len(content):
        length, _ = _PREFIX.unpack_from(content, at)
        block = content[at + _PREFIX.size : at + _PREFIX.size + length]
        made += _PREFIX.pack(len(block), zlib.crc32(block)) + block
        at += _PREFIX.size + length
    yield from InstrumentFileReader(bytes(made)).blocks()


_FOLDER: Final = Path(tempfile.mkdtemp(prefix="neo-fuzz-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def _recording(content: bytes) -> object:
    path = _FOLDER / "recording"
    path.write_bytes(content)
    return list(read_recording(path))


def _resealed_recording(content: bytes) -> object:
    at = len(FILE_HEADER)
    made = bytearray(FILE_HEADER)
    while at + _BLOCK.size <= len(content):
        _, size, first, _ = _BLOCK.unpack_from(content, at)
        end = content.find(b"\x78\x01", at + _BLOCK.size + 1)
        stored = content[at + _BLOCK.size : end if end > 0 else len(content)]
        with contextlib.suppress(zlib.error):
            size = len(zlib.decompressobj().decompress(stored, 1 << 20))
        covered = _COVERED.pack(len(stored), size, first)
        made += covered + zlib.crc32(stored, zlib.crc32(covered)).to_bytes(4, "little") + stored
        at += _BLOCK.size + len(stored)
    return _recording(bytes(made))


def _state_file(content: bytes) -> object:
    path = _private("state", content)
    store = Store(path)
    try:
        with store.read_as_foreign():
            if store.beginning() is not None:
                list(store.candles())
                MatchingEngine.restored(store.state())
                list(store.entries())
    finally:
        store.close()
    return None


def _journal(content: bytes) -> object:
    path = _private("journal", content)

    async def read() -> object:
        journal = Journal(path, ucc="UCC01")
        journal.open()
        try:
            return await journal.intents(0)
        finally:
            await journal.close()

    return asyncio.run(read())


def _private(name: str, content: bytes) -> Path:
    for old in _FOLDER.glob(f"{name}*"):
        old.unlink()
    path = _FOLDER / name
    path.write_bytes(content)
    path.chmod(0o600)
    return path


# --- the bank and Kite ----------------------------------------------------------------------------


def _bank(call: BankCall) -> Callable[[bytes], object]:
    profile = BankingProfile.of({"server": {"base_url": "http://127.0.0.1:1"}})
    formats, refusals = Formats(profile), Refusals(profile)
    read: Callable[[Any], object]
    if call is BankCall.FETCH:
        read = DeliveryReader(profile, formats).read
    elif call is BankCall.INQUIRY:
        read = StateReader(profile, refusals, formats).states
    else:
        refunds = RefundReader(profile, BankCall.REFUND, formats)

        def read(content: Any) -> object:
            return refunds.read(content, "key")

    return lambda body: read(refusals.open(call, Answer(200, {}, body)))


def _profile(content: bytes) -> object:
    path = _FOLDER / "profile.toml"
    path.write_bytes(content)
    return BankingProfile.load(path)


def _kite_rows(read: Callable[[Any], object]) -> Callable[[bytes], object]:
    return lambda body: [read(row) for row in kite.read_list(Answer(200, {}, body))]


def _kite_row(read: Callable[[Any], object]) -> Callable[[bytes], object]:
    return lambda body: read(kite.read_one(Answer(200, {}, body)))


# --- the lane ---------------------------------------------------------------------------------


_SOCKETS: Final = socket.socketpair()
"""One that nothing is ever sent to, and its other end."""
for _socket in _SOCKETS:
    atexit.register(_socket.close)


class _Transport(asyncio.Transport):
    """A socket that takes whatever is written."""

    def __init__(self) -> None:
        super().__init__({"socket": _SOCKETS[0]})
        self.is_closed = False

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


_LOOP: Final = asyncio.new_event_loop()
atexit.register(_LOOP.close)


def _http(content: bytes) -> object:
    """An answer in pieces, to a request that waits for it."""

    async def exchange() -> object:
        connection = Connection(_LOOP, on_idle=lambda _: None, on_lost=lambda _: None)
        transport = _Transport()
        connection.connection_made(transport)
        turn: asyncio.Future[Answer | None] = _LOOP.create_future()
        connection.send(Hidden(b"GET / HTTP/1.1\r\n\r\n"), turn, _LOOP.time() + 1.0, 1.0)
        for start in range(0, len(content), 65536):
            if not transport.is_closed:
                connection.data_received(content[start : start + 65536])
        if not transport.is_closed:
            connection.eof_received()
        connection.connection_lost(None)
        answer = await turn
        assert answer is not None
        return answer.status, dict(answer.headers)

    return _LOOP.run_until_complete(exchange())


# --- all of them ----------------------------------------------------------------------------------

READERS: Final[dict[str, Reader]] = {
    reader.name: reader
    for reader in (
        Reader("order answer", _answer(read_accepted), ("place", "session_invalid")),
        Reader("order book", _answer(read_order_book), ("order_book", "orders", "all")),
        Reader("order history", _answer(read_history), ("history", "order_history")),
        Reader("trades", _answer(read_trades), ("trades",)),
        Reader("positions", _answer(read_positions), ("positions", "positions_v2")),
        Reader("holdings", _answer(read_holdings), ("holdings",)),
        Reader("limits", _answer(read_limits), ("limits",)),
        Reader("margin", _answer(read_margin), ("check-margin", "margin_enough")),
        Reader("quotes", _answer(read_quotes), ("all", "quotes")),
        Reader("expiries", _answer(read_expiries), ("expiries",)),
        Reader(
            "option chain",
            _answer(
                lambda answer: read_options(
                    answer, segment="nse_fo", underlying="NIFTY", expiry=None
                )
            ),
            ("option-chain", "option_chain"),
        ),
        Reader(
            "futures chain",
            _answer(lambda answer: read_futures(answer, segment="nse_fo", underlying="NIFTY")),
            ("option-chain", "futures_chain"),
        ),
        Reader(
            "candles",
            _answer(_candles),
            ("candles", "details", "candles_refused"),
        ),
        Reader("login", _answer(read_login), ("tradeApiLogin", "tradeApiValidate")),
        Reader("file list", _answer(read_file_list), ("file-paths",)),
        Reader("error", _answer(_error), ("session_invalid", "candles_refused", "place")),
        Reader("order feed", read_message, ("order feed",)),
        Reader("ticks", _ticks, ("packets",), ()),
        Reader("asked ticks", _asked_ticks, ("packets",), ()),
        Reader("columns", _columns, ("packets",), ()),
        Reader("control frame", _control, ("control",)),
        Reader("scrip master", _scrip_master, ("nse_cm-v1.csv", "nse_fo.csv")),
        Reader("instrument file", _instrument_file, ("instruments",), (BadFile,)),
        Reader("instrument file resealed", _resealed_instrument_file, ("instruments",), (BadFile,)),
        Reader("recording", _recording, ("recording",), (UsageError,), on_loop=False),
        Reader(
            "recording resealed", _resealed_recording, ("recording",), (UsageError,), on_loop=False
        ),
        Reader("journal", _journal, ("journal",), on_loop=False),
        Reader("exchange state", _state_file, ("state",), (UsageError,), on_loop=False),
        Reader("faults", read_faults, ("faults",), (UsageError,)),
        Reader("order request", read_place, ("asked place",), (Refusal,)),
        Reader("handshake", _handshake, ("handshake",), ()),
        Reader("bank profile", _profile, ("profile",), (UsageError,), on_loop=False),
        Reader("bank accounts", _bank(BankCall.INQUIRY), ("inquiry", "create")),
        Reader("bank credits", _bank(BankCall.FETCH), ("fetch",)),
        Reader("bank refund", _bank(BankCall.REFUND), ("create",)),
        Reader("kite orders", _kite_rows(kite.read_order), ("orders",)),
        Reader("kite order", _kite_row(kite.read_order), ("order",)),
        Reader("kite SIPs", _kite_rows(kite.read_sip), ("sips",)),
        Reader("kite holdings", _kite_rows(kite.read_holding), ("holdings",)),
        Reader("kite login", _answer(kite.read_login), ("kite login",)),
        Reader("kite funds", _funds, ("instruments",)),
        Reader("lane", _http, ("http",), (AnswerLost, NotSent)),
    )
}
