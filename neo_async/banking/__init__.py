"""Kotak Open Banking virtual accounts: accounts, credits and refunds, in your bank's own format.

    from neo_async.banking import VirtualAccount, VirtualAccounts

`profile.py` describes the file with a bank's names, `transactions.py` how often a credit is
delivered.
"""

from neo_async.banking.client import VirtualAccounts
from neo_async.banking.model import (
    AccountChange,
    AccountResult,
    AccountState,
    AccountStatus,
    Credit,
    Outcome,
    Refund,
    RefundStatus,
    Refusal,
    VirtualAccount,
)
from neo_async.banking.profile import BankingProfile
from neo_async.banking.store import CreditStore
from neo_async.banking.transactions import Batch, Credits

__all__ = [
    "AccountChange",
    "AccountResult",
    "AccountState",
    "AccountStatus",
    "BankingProfile",
    "Batch",
    "Credit",
    "CreditStore",
    "Credits",
    "Outcome",
    "Refund",
    "RefundStatus",
    "Refusal",
    "VirtualAccount",
    "VirtualAccounts",
]
