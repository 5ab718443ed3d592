"""Credits, stored compactly: a payment that came many times is kept once.

References and whatever else the bank makes up follow from a credit's number, so that a hundred
thousand credits of one kind take no more room than one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime
from random import Random
from typing import Final

import msgspec

from neo_async.base.india import IST
from neo_async.exchange.bank.types import Credit, Payment

_DIGITS: Final = 10
"""Digits at the end of a reference that are the credit's number."""
_MODES: Final = {"NEFT": "N", "RTGS": "R", "IMPS": "I", "UPI": "U", "IFT": "F"}
_UNROUTED: Final = ("UPI", "IFT")
"""Modes that need no branch code."""
_NAMES: Final = ("RAVI K", "ASHA RAO", "MEERA N", "IMRAN S", "JOHN D", "LATA P", "ARUN B")
_BRANCHES: Final = ("ICIC0000004", "HDFC0000240", "SBIN0000813", "UTIB0000009")


class Run(msgspec.Struct, frozen=True, gc=False):
    """A payment made `count` times in a row."""

    payment: Payment
    virtual_account: str
    physical_account: str
    first_number: int
    """Number of the first credit among all credits of the bank."""
    first_sequence: int
    """Number of the first credit among those of the physical account."""
    count: int
    credited_at: float

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + self.count - 1

    def credit(self, position: int) -> Credit:
        """Return the credit at `position`, counted from 0."""
        payment, number = self.payment, self.first_number + position
        branch = payment.remitter_ifsc
        if branch is None:
            made_up = _BRANCHES[number % len(_BRANCHES)]
            branch = "" if payment.mode in _UNROUTED else made_up
        day = f"{datetime.fromtimestamp(self.credited_at, IST):%Y%m%d}"
        letter = _MODES.get(payment.mode, "X")
        bank = branch[:4] or "KKBK"
        account = payment.remitter_account
        return Credit(
            self.first_sequence + position,
            f"{bank}{letter}{day}{number:0{_DIGITS}d}",
            self.virtual_account,
            self.physical_account,
            payment.amount,
            payment.mode,
            f"{bank}{letter}{day[2:]}{number % 10**6:06d}" if payment.utr is None else payment.utr,
            payment.remitter_name or _NAMES[number % len(_NAMES)],
            f"{number * 2_654_435_761 % 10**12:012d}" if account is None else account,
            branch,
            payment.narration,
            self.credited_at,
        )


class Credits:
    """The credits of the bank, by reference and by sequence."""

    def __init__(self, seed: int) -> None:
        self._next_number = Random(f"{seed}|bank credits").randrange(1, 10**6)
        self._runs: list[Run] = []
        self._by_account: dict[str, list[Run]] = {}

    def add(
        self, payment: Payment, virtual_account: str, physical_account: str, count: int, now: float
    ) -> Run:
        run = Run(
            payment,
            virtual_account,
            physical_account,
            self._next_number,
            self.last_sequence(physical_account) + 1,
            count,
            now,
        )
        self._next_number += count
        self._runs.append(run)
        self._by_account.setdefault(physical_account, []).append(run)
        return run

    def last_sequence(self, physical_account: str) -> int:
        """Return the number of the account's newest credit; 0 before the first."""
        runs = self._by_account.get(physical_account)
        return runs[-1].last_sequence if runs else 0

    def find(self, reference: str) -> Credit | None:
        digits = reference[-_DIGITS:]
        if not (digits.isascii() and digits.isdecimal()):
            return None
        number = int(digits)
        index = bisect_right(self._runs, number, key=lambda run: run.first_number) - 1
        if index < 0:
            return None
        run = self._runs[index]
        position = number - run.first_number
        if position >= run.count:
            return None
        credit = run.credit(position)
        return credit if credit.reference == reference else None

    def between(self, physical_account: str, first: int, last: int) -> Iterator[Credit]:
        """Return credits by sequence, both ends included."""
        runs = self._by_account.get(physical_account, [])
        start_at = max(0, bisect_right(runs, first, key=lambda run: run.first_sequence) - 1)
        for index in range(start_at, len(runs)):
            run = runs[index]
            if run.first_sequence > last:
                return
            start = max(first, run.first_sequence) - run.first_sequence
            end = min(last, run.last_sequence) - run.first_sequence
            for position in range(start, end + 1):
                yield run.credit(position)
