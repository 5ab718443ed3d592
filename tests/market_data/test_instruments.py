"""The day's instruments: from the broker, from disk, and without either."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from neo_async import (
    Endpoints,
    InvalidOrder,
    NeoClient,
    NotSent,
    Order,
    OrderRequest,
    OrderType,
    Product,
    ProtocolError,
    Rejected,
    Segment,
    ServerError,
    Side,
    UsageError,
)
from neo_async.exchange import Exchange
from neo_async.exchange.tls import self_signed
from neo_async.market_data.instruments import Instruments
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster_writer import write_scripmaster
from tests.clients import client_of, exchange_of
from tests.conftest import SHARED
from tests.fake_servers import CREDENTIALS, accepted
from tests.simulation.virtual_time import now

REAL_FILE = SHARED / "data" / "scripmaster" / "nse_cm.csv"

NOON = 1_795_415_400.0
"""2026-11-23 12:00:00 IST."""
TODAY = date(2026, 11, 23)
WEEKLY, MONTHLY = date(2026, 11, 24), date(2026, 12, 29)
DAY = 86_400.0

TCS = Instrument(
    segment=Segment.NSE_CM,
    token="11536",
    symbol="TCS-EQ",
    name="TCS",
    series="EQ",
    description="TATA CONSULTANCY SERV LT",
    isin="INE467B01029",
    freeze_quantity=1000,
    lower_band=1900.0,
    upper_band=2300.05,
)


def option(strike: float, option_type: str = "CE", expiry: date = WEEKLY) -> Instrument:
    symbol = f"NIFTY{expiry:%y%m%d}{strike:g}{option_type}"
    return Instrument(
        segment=Segment.NSE_FO,
        token=f"{expiry:%m%d}{strike:g}{'1' if option_type == 'CE' else '2'}",
        symbol=symbol,
        name="NIFTY",
        series="XX",
        kind="OPTIDX",
        lot_size=65,
        expiry=expiry,
        strike=strike,
        option_type=option_type,
        freeze_quantity=1800,
    )


FUTURE = msgspec.structs.replace(
    option(0, "", MONTHLY), symbol="NIFTY26DECFUT", kind="FUTIDX", strike=None
)
OPTIONS = [
    option(strike, kind, expiry)
    for expiry in (MONTHLY, WEEKLY)
    for strike in (24500.0, 24000.0, 24100.0, 24200.0)
    for kind in ("PE", "CE")
]


class FileServer:
    """What the broker offers, to change between two calls."""

    def __init__(self) -> None:
        self.url = ""
        self.files = {
            "nse_cm-v1.csv": write_scripmaster([TCS]),
            "nse_fo.csv": write_scripmaster([FUTURE, *OPTIONS]),
        }
        self.status = self.file_status = 200
        self.moved_to = ""
        self.is_compressed = False
        self.listed_at = ""
        """Where the list says that the files are, unless here."""
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.status != 200:
            return web.json_response({"stCode": self.status}, status=self.status)
        if request.path.endswith("/file-paths"):
            root = self.listed_at or self.url
            paths = [f"{root}/2026-11-23/{name}" for name in self.files]
            return web.json_response({"data": {"filesPaths": paths}})
        if self.file_status != 200:
            return web.Response(status=self.file_status, text="<Error>NoSuchKey</Error>")
        if self.moved_to not in ("", request.path):
            raise web.HTTPFound(self.moved_to)
        content = self.files.get(request.path.rpartition("/")[2])
        if content is None:
            raise web.HTTPNotFound
        if content == b"torn":
            torn = web.StreamResponse(headers={"Content-Length": "100000"})
            await torn.prepare(request)
            await torn.write(self.files["nse_cm-v1.csv"])
            assert request.transport is not None
            request.transport.close()
            return torn
        response = web.Response(body=content, content_type="text/csv")
        if self.is_compressed:
            response.enable_compression(web.ContentCoding.gzip)
        return response


@contextlib.asynccontextmanager
async def file_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[FileServer]:
    server = FileServer()
    application = web.Application()
    application.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        server.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await accepted()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def instruments_of(
    server: FileServer | str, directory: Path, at: float = NOON, ca_file: str = ""
) -> AsyncIterator[Instruments]:
    """Those of a client that never logs in."""
    url = server if isinstance(server, str) else server.url
    neo = NeoClient(
        CREDENTIALS,
        endpoints=Endpoints(login=url, ca_file=ca_file),
        instruments_directory=directory,
        clock=lambda: at,
    )
    try:
        yield neo.instruments
    finally:
        await neo.logout()


def kept(directory: Path) -> dict[str, bytes]:
    """The files in a directory, by name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def path_of(segment: Segment, directory: Path) -> Path:
    (path,) = directory.glob(f"*{segment.value}.bin")
    return path


# --- from the broker ----------------------------------------------------------------------------


async def test_what_is_loaded_is_what_the_file_says(tmp_path: Path) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        cash, derivatives = await instruments.load(Segment.NSE_CM, Segment.NSE_FO)
        assert (cash.segment, cash.instruments, cash.day) == (Segment.NSE_CM, 1, TODAY)
        assert (cash.bad_row_count, cash.bad_rows, cash.is_stale) == (0, (), False)
        assert derivatives.address == f"{server.url}/2026-11-23/nse_fo.csv"
        assert dict(instruments.loaded) == {
            Segment.NSE_CM: cash,
            Segment.NSE_FO: derivatives,
        }
        assert instruments.get(Segment.NSE_CM, "TCS-EQ") == TCS
        assert instruments[Segment.NSE_FO, FUTURE.symbol] == FUTURE
        assert instruments.by_token(Segment.NSE_FO, OPTIONS[3].token) == OPTIONS[3]


async def test_a_list_that_came_over_tls_leads_to_no_file_in_clear_text(tmp_path: Path) -> None:
    context, ca_file = self_signed(tmp_path)
    async with (
        file_server(context) as server,
        file_server() as plain,
        instruments_of(server, tmp_path, ca_file=str(ca_file)) as instruments,
    ):
        for address in (plain.url, "ftp://127.0.0.1", f"https://user:pass@{server.url[8:]}"):
            server.listed_at = address
            with pytest.raises(ProtocolError, match=r"the broker offers a file at '.*': must "):
                await instruments.load(Segment.NSE_CM)
        assert plain.paths == []
        server.listed_at = ""
        await instruments.load(Segment.NSE_CM)


async def test_what_the_list_repeats_of_the_access_token_goes_nowhere(tmp_path: Path) -> None:
    key = CREDENTIALS.consumer_key
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        server.listed_at = f"{server.url}/{key}"
        (loaded,) = await instruments.load(Segment.NSE_CM)
        assert key not in loaded.address + "".join(server.paths)
        assert all(key.encode() not in content for content in kept(tmp_path).values())
        server.file_status = 404
        with pytest.raises(Rejected) as caught:
            await instruments.load(Segment.NSE_FO)
    assert key not in str(caught.value)


async def test_the_list_needs_the_access_token_and_no_login_and_the_file_gets_neither(
    tmp_path: Path,
) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_CM)
        asked, downloaded = server.headers
        assert asked["authorization"] == CREDENTIALS.consumer_key
        assert "sid" not in asked
        assert not {"authorization", "sid", "auth", "neo-fin-key"} & downloaded.keys()


async def test_bad_rows_are_named_and_the_rest_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        server.files["nse_cm-v1.csv"] += b"17,torn row\n"
        with caplog.at_level(logging.WARNING):
            (loaded,) = await instruments.load(Segment.NSE_CM)
        assert (loaded.instruments, loaded.bad_row_count) == (1, 1)
        assert (loaded.bad_rows[0].line, loaded.bad_rows[0].token) == (3, "17")
        assert "1 rows left out, the first in line 3" in caplog.text
    # So it is when the file comes from disk.
    async with instruments_of(server, tmp_path) as again:
        assert await again.load(Segment.NSE_CM) == [loaded]


async def test_a_segment_without_a_file_is_refused_with_what_there_is(tmp_path: Path) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        with pytest.raises(Rejected, match=r"no scrip master of mcx_fo today; it has nse_cm-v1"):
            await instruments.load(Segment.MCX_FO)
        assert not instruments.loaded


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"<html>maintenance</html>", ProtocolError), (b"", ProtocolError), (b"torn", Exception)],
)
async def test_a_file_that_is_none_is_an_error_and_is_not_kept(
    tmp_path: Path, content: bytes, error: type[Exception]
) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        server.files["nse_fo.csv"] = content
        with pytest.raises(error):
            await instruments.load(Segment.NSE_FO)
        assert not instruments.loaded
        assert not kept(tmp_path)


async def test_a_file_of_which_no_row_is_good_is_an_error(tmp_path: Path) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        server.files["nse_cm-v1.csv"] = server.files["nse_fo.csv"]
        with pytest.raises(ProtocolError, match="none of 17 rows"):
            await instruments.load(Segment.NSE_CM)


@pytest.mark.parametrize(("status", "error"), [(404, Rejected), (503, ServerError)])
async def test_a_file_that_is_listed_and_not_there_is_an_error(
    tmp_path: Path, status: int, error: type[Exception]
) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        server.file_status = status
        with pytest.raises(error, match=rf"no scrip master at {server.url}.*HTTP {status}"):
            await instruments.load(Segment.NSE_CM)


async def test_a_file_may_be_compressed_and_elsewhere(tmp_path: Path) -> None:
    sizes: list[int | None] = []
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        server.moved_to = "/elsewhere/nse_fo.csv"
        server.is_compressed = True
        (loaded,) = await instruments.load(
            Segment.NSE_FO, progress=lambda _, done, size: sizes.append(size)
        )
        assert loaded.instruments == 17
        assert server.paths[-1] == "/elsewhere/nse_fo.csv"
        # The size that the server tells is not that of the file.
        assert set(sizes) == {None}


async def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    reported: list[tuple[Segment, int, int | None]] = []
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_FO, progress=lambda *news: reported.append(news))
        size = len(server.files["nse_fo.csv"])
        assert reported[-1] == (Segment.NSE_FO, size, size)


async def test_nonsense_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    async with instruments_of("http://127.0.0.1:9", tmp_path) as instruments:
        with pytest.raises(UsageError, match="must be one of nse_cm"):
            await instruments.load("nse")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="needs a segment"):
            await instruments.load()


# --- from disk ------------------------------------------------------------------------------------


async def test_the_day_has_one_download(tmp_path: Path) -> None:
    async with file_server() as server:
        for hours in (0, 11):
            at = NOON + hours * 3600
            async with instruments_of(server, tmp_path, at) as instruments:
                await asyncio.gather(*(instruments.load(Segment.NSE_CM) for _ in range(3)))
                assert instruments[Segment.NSE_CM, "TCS-EQ"] == TCS
        assert len(server.paths) == 2
        # After midnight in India.
        async with instruments_of(server, tmp_path, NOON + 12 * 3600) as instruments:
            (loaded,) = await instruments.load(Segment.NSE_CM)
            assert loaded.day == TODAY + timedelta(days=1)
        assert len(server.paths) == 4


async def test_a_running_program_gets_the_new_days_file(tmp_path: Path) -> None:
    now = NOON
    async with file_server() as server:
        neo = NeoClient(
            CREDENTIALS,
            endpoints=Endpoints(login=server.url),
            instruments_directory=tmp_path,
            clock=lambda: now,
        )
        await neo.instruments.load(Segment.NSE_CM)
        assert neo.instruments.is_of_today(Segment.NSE_CM)
        now += DAY
        assert not neo.instruments.is_of_today(Segment.NSE_CM)
        server.files["nse_cm-v1.csv"] = write_scripmaster([msgspec.structs.replace(TCS, token="2")])
        await neo.instruments.load(Segment.NSE_CM)
        assert neo.instruments[Segment.NSE_CM, "TCS-EQ"].token == "2"
        await neo.logout()


async def test_refreshing_asks_the_broker_again(tmp_path: Path) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_CM)
        widened = msgspec.structs.replace(TCS, upper_band=2500.0)
        server.files["nse_cm-v1.csv"] = write_scripmaster([widened])
        await instruments.load(Segment.NSE_CM)
        assert instruments[Segment.NSE_CM, "TCS-EQ"].upper_band == 2300.05
        await instruments.load(Segment.NSE_CM, refresh=True)
        assert instruments[Segment.NSE_CM, "TCS-EQ"].upper_band == 2500.0
    async with instruments_of(server, tmp_path) as again:
        await again.load(Segment.NSE_CM)
        assert again[Segment.NSE_CM, "TCS-EQ"].upper_band == 2500.0


async def test_offline_an_earlier_days_file_serves_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_CM)
    async with instruments_of(server, tmp_path, NOON + 3 * DAY) as offline:
        with caplog.at_level(logging.WARNING):
            (loaded,) = await offline.load(Segment.NSE_CM)
        assert (loaded.is_stale, loaded.day) == (True, TODAY)
        assert "going on with that of 2026-11-23" in caplog.text
        assert offline[Segment.NSE_CM, "TCS-EQ"] == TCS
        assert "nse_cm 1 stale" in repr(offline)
        with pytest.raises(NotSent):
            await offline.load(Segment.NSE_CM, refresh=True)
        with pytest.raises(NotSent):
            await offline.load(Segment.NSE_FO)


async def test_a_broker_in_trouble_is_as_good_as_offline(tmp_path: Path) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_CM)
        server.status = 503
        async with instruments_of(server, tmp_path, NOON + DAY) as later:
            (loaded,) = await later.load(Segment.NSE_CM)
            assert loaded.is_stale
            with pytest.raises(ServerError):
                await later.load(Segment.NSE_FO)
            server.status = 200
            (loaded,) = await later.load(Segment.NSE_CM)
            assert not loaded.is_stale


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "other segment", "directory"])
async def test_a_damaged_file_on_disk_is_downloaded_anew(tmp_path: Path, damage: str) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_CM, Segment.NSE_FO)
        path = path_of(Segment.NSE_CM, tmp_path)
        content = path.read_bytes()
        if damage == "directory":
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes(
                {
                    "empty": b"",
                    "cut": content[:-10],
                    "changed": content[:-10] + b"0123456789",
                    "other segment": path_of(Segment.NSE_FO, tmp_path).read_bytes(),
                }[damage]
            )
        async with instruments_of(server, tmp_path) as again:
            (loaded,) = await again.load(Segment.NSE_CM)
            assert (loaded.instruments, loaded.is_stale) == (1, False)
            assert again[Segment.NSE_CM, "TCS-EQ"] == TCS
        if damage != "directory":
            assert path.read_bytes() == content


async def test_a_failing_download_leaves_the_file_on_disk_alone(tmp_path: Path) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_FO)
        before = kept(tmp_path)
        server.files["nse_fo.csv"] = b"torn"
        with pytest.raises(Exception, match="lost"):
            await instruments.load(Segment.NSE_FO, refresh=True)
        assert kept(tmp_path) == before
        assert instruments[Segment.NSE_FO, FUTURE.symbol] == FUTURE


async def test_a_disk_that_takes_nothing_costs_no_more_than_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "file"
    directory.write_text("in the way")
    async with file_server() as server, instruments_of(server, directory) as instruments:
        with caplog.at_level(logging.WARNING):
            await instruments.load(Segment.NSE_CM)
        assert "could not be kept" in caplog.text
        assert instruments[Segment.NSE_CM, "TCS-EQ"] == TCS


async def test_two_servers_do_not_share_a_file(tmp_path: Path) -> None:
    async with file_server() as one, file_server() as other:
        other.files["nse_cm-v1.csv"] = write_scripmaster([msgspec.structs.replace(TCS, token="7")])
        for server, token in ((one, "11536"), (other, "7"), (one, "11536")):
            async with instruments_of(server, tmp_path) as instruments:
                await instruments.load(Segment.NSE_CM)
                assert instruments[Segment.NSE_CM, "TCS-EQ"].token == token


async def test_files_that_nobody_used_for_long_are_removed(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in ("instruments-a.bin", "instruments-b.bin", "c"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - 15 * DAY,) * 2)
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        await instruments.load(Segment.NSE_CM)
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


async def test_the_loop_gets_its_turn_while_a_file_is_read(tmp_path: Path) -> None:
    """Counted, not timed: other work runs between any two pieces of a file."""
    rows = [msgspec.structs.replace(TCS, token=str(n), symbol=f"S{n}") for n in range(5_000)]
    async with file_server() as server:
        server.files["nse_cm-v1.csv"] = write_scripmaster(rows)
        pieces = len(server.files["nse_cm-v1.csv"]) // 32_768
        for expected in (pieces, 5):
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            async with instruments_of(server, tmp_path) as instruments:
                counting = asyncio.create_task(count())
                await instruments.load(Segment.NSE_CM)
                counting.cancel()
                await asyncio.gather(counting, return_exceptions=True)
            assert turns >= expected


# --- searching ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def loaded(directory: Path) -> AsyncIterator[Instruments]:
    async with file_server() as server, instruments_of(server, directory) as instruments:
        await instruments.load(Segment.NSE_CM, Segment.NSE_FO)
        yield instruments


async def test_search_by_name_expiry_strike_and_option(tmp_path: Path) -> None:
    async with loaded(tmp_path) as instruments:
        assert len(instruments.search("NIFTY")) == 17
        found = instruments.search("NIFTY", option="CE", expiry=WEEKLY, strike=(24050, 24300))
        assert found == [option(24100.0), option(24200.0)]
        assert instruments.search("nifty ", kind="fut") == [FUTURE]
        both = instruments.search("NIFTY", strike=24500, expiry=(TODAY, MONTHLY))
        assert [(row.expiry, row.option_type) for row in both] == [
            (WEEKLY, "CE"),
            (WEEKLY, "PE"),
            (MONTHLY, "CE"),
            (MONTHLY, "PE"),
        ]
        assert instruments.search("NIFTY", segment=Segment.NSE_CM) == []
        assert instruments.search("NIFTY", expiry=TODAY) == []


async def test_people_may_search_by_parts(tmp_path: Path) -> None:
    async with loaded(tmp_path) as instruments:
        assert instruments.search("TCS") == instruments.search("tcs-eq") == [TCS]
        assert instruments.search("consultancy") == instruments.search("TC") == [TCS]
        assert instruments.search("DECFUT") == [FUTURE]
        assert instruments.search(FUTURE.symbol) == [FUTURE]
        assert instruments.search(FUTURE.symbol, kind="OPT") == []
        assert instruments.search("nothing like it") == []
        assert len(instruments.search("")) == 18


async def test_expiries_and_the_nearest(tmp_path: Path) -> None:
    async with loaded(tmp_path) as instruments:
        assert instruments.expiries("NIFTY") == [WEEKLY, MONTHLY]
        assert instruments.expiries("NIFTY", kind="FUT") == [MONTHLY]
        assert instruments.nearest_expiry("NIFTY") == WEEKLY
        assert instruments.nearest_expiry("NIFTY", on=WEEKLY) == WEEKLY
        assert instruments.nearest_expiry("NIFTY", on=WEEKLY + timedelta(days=1)) == MONTHLY
        for name, day in (("NIFTY", MONTHLY + timedelta(days=1)), ("TCS", None)):
            with pytest.raises(UsageError, match="no expiry"):
                instruments.nearest_expiry(name, on=day)


async def test_the_chain_around_a_price(tmp_path: Path) -> None:
    async with loaded(tmp_path) as instruments:
        assert instruments.at_the_money("NIFTY", WEEKLY, 24149.9) == 24100.0
        assert instruments.at_the_money("NIFTY", WEEKLY, 24150) == 24100.0
        assert instruments.at_the_money("NIFTY", WEEKLY, 24350.1) == 24500.0

        def strikes(around: float, count: int) -> list[float]:
            rows = instruments.chain("NIFTY", WEEKLY, around=around, count=count)
            return [row.strike for row in rows]

        assert strikes(24120, 1) == [24100.0]
        assert strikes(24120, 2) == [24100.0, 24200.0]
        assert strikes(24120, 3) == [24000.0, 24100.0, 24200.0]
        assert strikes(0, 3) == [24000.0, 24100.0, 24200.0]
        assert strikes(99999, 3) == [24100.0, 24200.0, 24500.0]
        assert strikes(24120, 10) == [24000.0, 24100.0, 24200.0, 24500.0]
        row = instruments.chain("NIFTY", WEEKLY, around=24000, count=1)[0]
        assert (row.call, row.put) == (option(24000.0, "CE"), option(24000.0, "PE"))
        with pytest.raises(UsageError, match="no options of 'NIFTY' that expire on 2026-11-23"):
            instruments.chain("NIFTY", TODAY, around=24000)
        with pytest.raises(UsageError, match="count=0"):
            instruments.chain("NIFTY", WEEKLY, around=24000, count=0)


async def test_a_chain_of_two_exchanges_must_say_which(tmp_path: Path) -> None:
    async with file_server() as server, instruments_of(server, tmp_path) as instruments:
        twin = msgspec.structs.replace(option(24100.0), segment=Segment.BSE_FO)
        server.files["bse_fo.csv"] = write_scripmaster([twin])
        await instruments.load(Segment.NSE_FO, Segment.BSE_FO)
        with pytest.raises(UsageError, match="in bse_fo and nse_fo"):
            instruments.at_the_money("NIFTY", WEEKLY, 24000)
        assert instruments.at_the_money("NIFTY", WEEKLY, 0, segment=Segment.BSE_FO) == 24100.0


async def test_what_is_not_loaded_is_no_empty_answer(tmp_path: Path) -> None:
    async with loaded(tmp_path) as instruments:
        with pytest.raises(UsageError, match="mcx_fo is not loaded"):
            instruments.get(Segment.MCX_FO, "GOLD")
        with pytest.raises(UsageError, match="mcx_fo is not loaded"):
            instruments.search("GOLD", segment=Segment.MCX_FO)
        with pytest.raises(UsageError, match="nse_cm of 2026-11-23 has no trading symbol 'GOLD'"):
            instruments[Segment.NSE_CM, "GOLD"]
        with pytest.raises(UsageError, match="must be CE or PE"):
            instruments.search("NIFTY", option="CALL")
        assert instruments.get(Segment.NSE_CM, "GOLD") is None
    async with instruments_of("http://127.0.0.1:9", tmp_path) as empty:
        with pytest.raises(UsageError, match="no segment is loaded"):
            empty.search("NIFTY")
        assert repr(empty) == "<Instruments none loaded>"


@pytest.mark.skipif(not REAL_FILE.exists(), reason="the broker's file is not here")
async def test_the_brokers_own_file_loads_and_is_searched(tmp_path: Path) -> None:
    async with file_server() as server:
        server.files["nse_cm-v1.csv"] = REAL_FILE.read_bytes()
        for _ in ("from the broker", "from disk"):
            async with instruments_of(server, tmp_path) as instruments:
                (loaded,) = await instruments.load(Segment.NSE_CM)
                assert (loaded.instruments, loaded.bad_row_count) == (7532, 0)
                itbees = instruments[Segment.NSE_CM, "ITBEES-EQ"]
                assert (itbees.token, itbees.tick_size, itbees.upper_band) == ("19084", 0.01, 36.22)
                assert itbees.face_value == 10.0
                assert itbees in instruments.search("ITBEES")
                assert itbees in instruments.search("nip ind etf")
                assert instruments.by_token(Segment.NSE_CM, "19084") is itbees
        assert len(server.paths) == 2


# --- orders ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def trading(directory: Path) -> AsyncIterator[tuple[NeoClient, Exchange, Instrument]]:
    """A client with the exchange's derivatives loaded, and a future to trade."""
    async with (
        exchange_of() as exchange,
        client_of(exchange, instruments_directory=directory) as neo,
    ):
        await neo.instruments.load(Segment.NSE_FO)
        future = neo.instruments.search("NIFTY", kind="FUT")[0]
        assert future.freeze_quantity is not None
        yield neo, exchange, future


def terms(future: Instrument, **changes: Any) -> dict[str, Any]:
    """An order of one lot at the lower band: it rests, and needs little margin."""
    return {
        "segment": future.segment,
        "symbol": future.symbol,
        "side": Side.BUY,
        "quantity": future.lot_size,
        "product": Product.NRML,
        "price": future.lower_band,
        **changes,
    }


async def test_what_the_file_forbids_is_refused_and_nothing_is_sent(tmp_path: Path) -> None:
    async with trading(tmp_path) as (neo, exchange, future):
        lower, upper = Decimal(str(future.lower_band)), Decimal(str(future.upper_band))
        tick = Decimal(str(future.tick_size))
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("price", {"price": lower + tick / 2}),
            ("price", {"price": lower - tick}),
            ("price", {"price": upper + tick}),
            ("quantity", {"quantity": future.lot_size - 1}),
            ("quantity", {"quantity": (future.freeze_quantity or 0) + future.lot_size}),
            ("trigger", {"order_type": OrderType.SL, "price": upper, "trigger": upper - tick / 2}),
        ]
        for field, change in wrong:
            with pytest.raises(InvalidOrder) as caught:
                await neo.orders.place(**terms(future, **change))
            assert caught.value.field == field
        requests = [OrderRequest(**terms(future)), OrderRequest(**terms(future, quantity=1))]
        with pytest.raises(InvalidOrder, match=r"requests\[1\].quantity"):
            await neo.orders.place_many(requests)
        assert exchange.market.ledger == []


async def test_what_the_file_allows_reaches_the_exchange(tmp_path: Path) -> None:
    async with trading(tmp_path) as (neo, exchange, future):
        order = await neo.orders.place(**terms(future))
        tick = Decimal(str(future.tick_size))
        higher = Decimal(str(future.lower_band)) + tick
        with pytest.raises(InvalidOrder, match="steps of"):
            await neo.orders.modify(order, price=higher + tick / 2)
        with pytest.raises(InvalidOrder, match="lots of"):
            await neo.orders.modify(order, quantity=future.lot_size + 1)
        await neo.orders.modify(order, price=higher)
        assert order.price == Decimal(higher)
        assert len(exchange.market.ledger) == 1


async def test_a_slice_goes_out_as_several_orders(tmp_path: Path) -> None:
    async with trading(tmp_path) as (neo, exchange, future):
        assert future.freeze_quantity is not None
        largest = future.freeze_quantity // future.lot_size * future.lot_size
        quantity = 2 * largest + future.lot_size
        wish = terms(future, quantity=quantity, disclosed_quantity=largest, tag="big")
        orders = await neo.orders.place_sliced(OrderRequest(**wish))
        assert all(isinstance(order, Order) for order in orders)
        sent = sorted((record.quantity for record in exchange.market.ledger), reverse=True)
        assert sent == [largest, largest, future.lot_size]
        assert len({record.client_tag for record in exchange.market.ledger}) == 3
        (single,) = await neo.orders.place_sliced(OrderRequest(**terms(future)))
        assert isinstance(single, Order)


async def test_a_slice_breaks_no_other_rule(tmp_path: Path) -> None:
    async with trading(tmp_path) as (neo, exchange, future):
        for field, change in (("quantity", {"quantity": 99_999_999}), ("price", {"price": "0.01"})):
            with pytest.raises(InvalidOrder) as caught:
                await neo.orders.place_sliced(OrderRequest(**terms(future, **change)))
            assert caught.value.field == field
        with pytest.raises(InvalidOrder, match=r"load\('nse_cm'\) first"):
            await neo.orders.place_sliced(
                OrderRequest(
                    Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, product=Product.CNC, price="39.00"
                )
            )
        assert exchange.market.ledger == []


async def test_what_is_not_loaded_is_left_to_the_broker(tmp_path: Path) -> None:
    async with exchange_of() as exchange:
        async with client_of(exchange, instruments_directory=tmp_path) as neo:
            await neo.orders.place(
                Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, product=Product.CNC, price="1.00"
            )
        assert len(exchange.market.ledger) == 1


async def test_yesterdays_bands_refuse_nothing(tmp_path: Path) -> None:
    later = 0.0
    async with (
        exchange_of() as exchange,
        client_of(exchange, instruments_directory=tmp_path, clock=lambda: now() + later) as neo,
    ):
        await neo.instruments.load(Segment.NSE_FO)
        future = neo.instruments.search("NIFTY", kind="FUT")[0]
        above = Decimal(str(future.upper_band)) + Decimal(str(future.tick_size))
        with pytest.raises(InvalidOrder, match="band"):
            await neo.orders.place(**terms(future, price=above))
        later = DAY
        await neo.orders.place(**terms(future, price=above))
        with pytest.raises(InvalidOrder, match="lots"):
            await neo.orders.place(**terms(future, quantity=1))
        assert len(exchange.market.ledger) == 1
