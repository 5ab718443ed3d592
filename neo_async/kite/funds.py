"""The day's list of funds: cached on disk, looked up and searched."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import date
from pathlib import Path
from typing import Final

from neo_async.base import logs
from neo_async.base.india import date_of
from neo_async.config import cache_directory
from neo_async.errors import NeoError, ProtocolError, UsageError
from neo_async.kite.fund_file import FundFileReader
from neo_async.kite.model import Fund
from neo_async.kite.wire import failure
from neo_async.model.answer import Answer
from neo_async.system import files
from neo_async.transport.http import Download

log = logging.getLogger(logs.KITE)

_DOWNLOADED: Final = 262_144
"""Largest error page that is read, in bytes."""
_REINVESTMENT: Final = "reinvest"


class Funds:
    """The funds of one day, iterable in the list's order.

    funds["INF174K01LS2"].minimum_purchase_amount
    funds.search("kotak liquid", plan="direct", dividend_type="growth")
    """

    def __init__(
        self, funds: list[Fund], *, day: date, bad_row_count: int = 0, is_stale: bool = False
    ) -> None:
        self.day = day
        """Date in India on which the list was downloaded."""
        self.bad_row_count = bad_row_count
        """Number of unreadable rows, which were left out."""
        self.is_stale = is_stale
        """Whether the list is of an earlier day, because today's could not be downloaded."""
        self._funds = funds
        self._by_isin = {fund.tradingsymbol: fund for fund in funds}
        self._named = [(fund.name.lower(), fund) for fund in funds]

    def get(self, isin: str) -> Fund | None:
        return self._by_isin.get(isin)

    def __getitem__(self, isin: str) -> Fund:
        """Return a fund by its ISIN. Raises UsageError when there is none."""
        fund = self._by_isin.get(isin)
        if fund is None:
            raise UsageError(f"no fund {isin!r} in the list of {self.day}")
        return fund

    def __contains__(self, isin: object) -> bool:
        return isin in self._by_isin

    def __iter__(self) -> Iterator[Fund]:
        return iter(self._funds)

    def __len__(self) -> int:
        return len(self._funds)

    def __repr__(self) -> str:
        return f"<Funds {len(self)} of {self.day}{', stale' if self.is_stale else ''}>"

    def search(
        self,
        name: str = "",
        *,
        isin: str = "",
        amc: str = "",
        plan: str = "",
        dividend_type: str = "",
        scheme_type: str = "",
    ) -> list[Fund]:
        """Return the funds whose name contains every word of `name`, and that match the other
        arguments: the start of an ISIN, a part of the AMC's code, a plan (`direct`, `regular`), a
        dividend type (`growth`, `payout`, `idcw`), a scheme type (`equity`, `debt`, `elss` …). Case
        is ignored.

        Raises UsageError for dividend reinvestment, which Kite's API does not support.
        """
        if _REINVESTMENT in dividend_type.lower():
            raise UsageError(
                f"dividend_type={dividend_type!r}: Kite's API does not support dividend "
                "reinvestment schemes; there are growth, payout and idcw"
            )
        # One condition after another: Python filters whole lists fastest.
        found = self._named
        for word in name.lower().split():
            found = [each for each in found if word in each[0]]
        funds = [fund for _, fund in found]
        if start := isin.strip().upper():
            funds = [fund for fund in funds if fund.tradingsymbol.startswith(start)]
        if company := amc.strip().lower():
            funds = [fund for fund in funds if company in fund.amc.lower()]
        if wanted := plan.strip().lower():
            funds = [fund for fund in funds if fund.plan == wanted]
        if wanted := dividend_type.strip().lower():
            funds = [fund for fund in funds if fund.dividend_type == wanted]
        if wanted := scheme_type.strip().lower():
            funds = [fund for fund in funds if fund.scheme_type == wanted]
        return funds


class FundStore:
    """Loads today's list of funds from memory, from disk or from Kite, in this order."""

    def __init__(
        self,
        download: Callable[[], AbstractAsyncContextManager[Download]],
        *,
        server: str,
        directory: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Cache files in `directory`, separately for each `server`."""
        self._download = download
        self._directory = directory
        self._prefix = f"kite-funds-{hashlib.sha256(server.encode()).hexdigest()[:12]}-"
        self._clock = clock
        self._lock = asyncio.Lock()
        self.loaded: Funds | None = None

    @property
    def is_of_today(self) -> bool:
        """Whether the loaded list is today's. An older one lacks funds that have been added
        since."""
        return self.loaded is not None and self.loaded.day == self._today()

    async def load(self, *, refresh: bool = False) -> Funds:
        """Return the list, as `KiteMutualFunds.instruments` does."""
        async with self._lock:
            today = self._today()
            if not refresh:
                if self.loaded is None:
                    self.loaded = await self._read_newest()
                if self.loaded is not None and self.loaded.day == today:
                    return self.loaded
            try:
                self.loaded = await self._fetch(today)
            except NeoError as error:
                if self.loaded is None or refresh:
                    raise
                old = self.loaded
                log.warning("no list of funds for today: %s; using the one of %s", error, old.day)
                self.loaded = Funds(
                    list(old), day=old.day, bad_row_count=old.bad_row_count, is_stale=True
                )
            return self.loaded

    def _today(self) -> date:
        return date_of(self._clock())

    async def _fetch(self, today: date) -> Funds:
        reader = FundFileReader()
        pieces = []
        async with self._download() as file:
            if file.status != 200:
                raise await _refusal(file)
            async for piece in file.pieces:
                pieces.append(piece)
                for _ in reader.feed(piece):
                    await asyncio.sleep(0)
            reader.finish()
        await self._keep(today, pieces)
        return Funds(reader.funds, day=today, bad_row_count=reader.bad_row_count)

    # --- the disk -----------------------------------------------------------------------------

    async def _read_newest(self) -> Funds | None:
        """Return the newest cached list; None without one."""
        for path in reversed(self._files()):
            reader = FundFileReader()
            try:
                day = date.fromisoformat(path.stem.removeprefix(self._prefix))
                content = await asyncio.to_thread(files.read_private, path)
                if content is None:
                    log.info("downloading the list of funds: %s is not private", path)
                    continue
                for _ in reader.feed(content):
                    await asyncio.sleep(0)
                reader.finish()
            except (OSError, ValueError, ProtocolError) as error:
                log.info("downloading the list of funds: %s: %s", path, error)
                continue
            return Funds(reader.funds, day=day, bad_row_count=reader.bad_row_count)
        return None

    async def _keep(self, today: date, pieces: list[bytes]) -> None:
        path = self._folder / f"{self._prefix}{today}.csv"
        try:
            await asyncio.to_thread(self._replace, path, pieces)
        except OSError as error:
            # Today it is in memory; the next start will have to download it again.
            log.warning("the list of funds could not be cached: %s", error)

    def _replace(self, path: Path, pieces: list[bytes]) -> None:
        files.replace(path, pieces)
        for old in self._files():
            if old != path:
                old.unlink(missing_ok=True)
        files.remove_old(path.parent, "kite-funds-*.csv", ".kite-funds-*")

    @property
    def _folder(self) -> Path:
        return self._directory or cache_directory()

    def _files(self) -> list[Path]:
        """Return the cached files, oldest first: their names end in the day."""
        return sorted(self._folder.glob(f"{self._prefix}*.csv"))


async def _refusal(file: Download) -> NeoError:
    body = b""
    async for piece in file.pieces:
        body += piece
        if len(body) > _DOWNLOADED:
            break
    return failure(Answer(file.status, file.headers, body))
