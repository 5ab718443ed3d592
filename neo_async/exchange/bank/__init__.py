"""The exchange's bank: virtual accounts, their credits and refunds, as Kotak Open Banking has them.

Kotak publishes what these services do, but neither paths nor fields nor codes. Those here are a
complete default of ours; the client's profile can put a bank's own names in their place.

`books` keeps the accounts: pure, seeded, money in paise. `forms` reads what callers send, `service`
is the HTTP around it: tokens, plan limits, repeated requests.
"""

from neo_async.exchange.bank.service import Bank
from neo_async.exchange.bank.settings import BankSettings

__all__ = ["Bank", "BankSettings"]
