"""The customers of the embedded exchange."""

from __future__ import annotations

import random
import string
import uuid

import msgspec

from neo_async.config import Credentials

_BASE32 = string.ascii_uppercase + "234567"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A customer. The client code (`ucc`) is the name of the account at the market."""

    credentials: Credentials
    name: str
    pan: str
    user_id: str
    """UUID, the `sub` of the tokens."""

    @property
    def ucc(self) -> str:
        return self.credentials.ucc


def make_accounts(seed: int, count: int = 2, key: str = "") -> tuple[Account, ...]:
    """Return accounts with made-up credentials, which the seed and the key determine. Names and
    client codes depend on the seed alone, so that a state file keeps its accounts under another
    key."""
    rng = random.Random(f"accounts {seed}")
    accounts = [_make_account(rng, index) for index in range(1, count + 1)]
    if key:
        rng = random.Random(f"accounts {seed} {key}")
        accounts = [_with_secrets(account, rng) for account in accounts]
    return tuple(accounts)


def _with_secrets(account: Account, rng: random.Random) -> Account:
    """Return the account with other secrets."""
    other = _make_account(rng, 1).credentials
    credentials = msgspec.structs.replace(
        account.credentials,
        consumer_key=other.consumer_key,
        mpin=other.mpin,
        totp_secret=other.totp_secret,
    )
    return msgspec.structs.replace(account, credentials=credentials)


def _make_account(rng: random.Random, index: int) -> Account:
    def letters(count: int, alphabet: str = string.ascii_uppercase) -> str:
        return "".join(rng.choices(alphabet, k=count))

    credentials = Credentials(
        consumer_key=str(_uuid(rng)),
        mobile_number="+919" + letters(9, string.digits),
        ucc=f"{letters(3)}{letters(1, string.digits)}{index}",
        mpin=letters(6, string.digits),
        totp_secret=letters(32, _BASE32),
    )
    return Account(
        credentials=credentials,
        name=f"TRADER {index}",
        pan=f"{letters(5)}{letters(4, string.digits)}{letters(1)}",
        user_id=str(_uuid(rng)),
    )


def _uuid(rng: random.Random) -> uuid.UUID:
    return uuid.UUID(int=rng.getrandbits(128), version=4)
