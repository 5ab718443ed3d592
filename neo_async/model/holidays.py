"""Holidays and special sessions of NSE, BSE and MCX, as their circulars list them.

One row a day that has not the hours of its weekday: what shares and equity derivatives, currency
derivatives and commodities do on it, and why.

    open           the regular hours
    closed         no session
    morning        commodities until 17:00
    evening        commodities from 17:00
    17:00-21:00    that session alone
    (13:45-14:45)  that session alone, on a day that stays a holiday: muhurat trading

Sources for 2026: NSE/CMTR/71775, NSE/CD/71962 and NSE/COM/71784, BSE notices 20251215-5 and
20251223-12; the elections of 15 January by NSE/CMTR/72260, CD/72233 and COM/72263; the budget's
Sunday by NSE/CMTR/72349, FAOP/72352 and COM/72351. For 2025: NSE/CMTR/65587, NSE/CD/65903 with
its change CD/70033, and MCX's list. Muhurat trading of 2026 is fixed for 8 November by
NSE/FAOP/71777; its hour here is that of 2021 to 2023, because the circular that sets it was not at
hand.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Final, NamedTuple

OPEN: Final = "open"
CLOSED: Final = "closed"
MORNING: Final = "morning"
EVENING: Final = "evening"

KNOWN_FROM: Final = date(2025, 1, 1)
KNOWN_UNTIL: Final = date(2026, 12, 31)
"""First and last day of the years whose holidays are listed below."""

_LISTED: Final = """
    2025-01-01  open           open           morning        New Year's Day
    2025-02-01  open           closed         morning        Union Budget
    2025-02-19  open           closed         open           Chhatrapati Shivaji Maharaj Jayanti
    2025-02-26  closed         closed         evening        Mahashivratri
    2025-03-14  closed         closed         evening        Holi
    2025-03-31  closed         closed         evening        Id-ul-Fitr
    2025-04-01  open           closed         open           Annual closing of banks
    2025-04-10  closed         closed         evening        Mahavir Jayanti
    2025-04-14  closed         closed         evening        Dr. Babasaheb Ambedkar Jayanti
    2025-04-18  closed         closed         closed         Good Friday
    2025-05-01  closed         closed         evening        Maharashtra Day
    2025-05-12  open           closed         open           Buddha Purnima
    2025-08-15  closed         closed         closed         Independence Day
    2025-08-27  closed         closed         evening        Ganesh Chaturthi
    2025-09-08  open           closed         open           Id-e-Milad
    2025-10-02  closed         closed         closed         Mahatma Gandhi Jayanti
    2025-10-21  (13:45-14:45)  (13:45-14:45)  (13:45-14:45)  Diwali Laxmi Pujan, muhurat trading
    2025-10-22  closed         closed         evening        Diwali Balipratipada
    2025-11-05  closed         closed         evening        Guru Nanak Jayanti
    2025-12-25  closed         closed         closed         Christmas
    2026-01-01  open           open           morning        New Year's Day
    2026-01-15  closed         closed         evening        Municipal elections in Maharashtra
    2026-01-26  closed         closed         closed         Republic Day
    2026-02-01  open           closed         morning        Union Budget
    2026-02-19  open           closed         open           Chhatrapati Shivaji Maharaj Jayanti
    2026-03-03  closed         closed         evening        Holi
    2026-03-19  open           closed         open           Gudi Padwa
    2026-03-26  closed         closed         evening        Ram Navami
    2026-03-31  closed         closed         evening        Mahavir Jayanti
    2026-04-01  open           closed         open           Annual closing of banks
    2026-04-03  closed         closed         closed         Good Friday
    2026-04-14  closed         closed         evening        Dr. Babasaheb Ambedkar Jayanti
    2026-05-01  closed         closed         evening        Maharashtra Day
    2026-05-28  closed         closed         evening        Bakri Id
    2026-06-26  closed         closed         evening        Muharram
    2026-08-26  open           closed         open           Id-e-Milad
    2026-09-14  closed         closed         evening        Ganesh Chaturthi
    2026-10-02  closed         closed         closed         Mahatma Gandhi Jayanti
    2026-10-20  closed         closed         evening        Dussehra
    2026-11-08  (18:15-19:15)  (18:15-19:15)  (18:15-19:15)  Diwali Laxmi Pujan, muhurat trading
    2026-11-10  closed         closed         evening        Diwali Balipratipada
    2026-11-24  closed         closed         evening        Guru Nanak Jayanti
    2026-12-25  closed         closed         closed         Christmas
"""

_EVERY_YEAR: Final = """
    01-01  open    open    morning  New Year's Day
    01-26  closed  closed  closed   Republic Day
    04-01  open    closed  open     Annual closing of banks
    04-14  closed  closed  evening  Dr. Babasaheb Ambedkar Jayanti
    05-01  closed  closed  evening  Maharashtra Day
    08-15  closed  closed  closed   Independence Day
    10-02  closed  closed  closed   Mahatma Gandhi Jayanti
    12-25  closed  closed  closed   Christmas
"""
"""Holidays that have a fixed date: all that is known of years that are not listed."""


class Holiday(NamedTuple):
    """What trades on a day that has not the hours of its weekday."""

    equity: str
    """Shares and equity derivatives of NSE and BSE."""
    currency: str
    commodity: str
    name: str


def holiday_on(day: date) -> Holiday | None:
    """Return the row of a day; None for a day with the hours of its weekday. On a weekend, which
    is closed in any case, there is a row only for a special session."""
    if KNOWN_FROM <= day <= KNOWN_UNTIL:
        return _rows(_LISTED).get(day.isoformat())
    return _rows(_EVERY_YEAR).get(f"{day:%m-%d}") if day.weekday() < 5 else None


@cache
def _rows(table: str) -> dict[str, Holiday]:
    rows = {}
    for line in table.strip().splitlines():
        day, equity, currency, commodity, name = line.split(maxsplit=4)
        rows[day] = Holiday(equity, currency, commodity, name)
    return rows
