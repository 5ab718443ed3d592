"""`VirtualAccounts`: what a program calls. It composes the rooms beside it and owns their life."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from neo_async.banking.accounts import Accounts, Progress
from neo_async.banking.calls import BankCalls, new_key
from neo_async.banking.model import (
    AccountChange,
    AccountResult,
    AccountState,
    Money,
    Refund,
    VirtualAccount,
)
from neo_async.banking.names import Call
from neo_async.banking.profile import Auth, BankingProfile
from neo_async.banking.refunds import Refunds
from neo_async.banking.rules import AccountRules, bank_account, ifsc, money
from neo_async.banking.store import CreditStore
from neo_async.banking.token import Identity, Pass, TokenKeeper
from neo_async.banking.transactions import BatchSource, Credits
from neo_async.config import RateLimits
from neo_async.errors import InvalidField, UsageError
from neo_async.transport.daily_quota import DailyQuota
from neo_async.transport.hidden import Hidden
from neo_async.transport.http import HttpClient
from neo_async.transport.limiter import Limiter
from neo_async.transport.tls import trusting


class VirtualAccounts:
    """Kotak Open Banking virtual accounts, in the format that your bank has agreed with you.

    async with VirtualAccounts(client_id, client_secret, profile="bank.toml") as bank:
        for result in await bank.create([VirtualAccount("ACME00000001", "Asha Rao")]):
            print(result.number, result.outcome, result.reason)
        async for credit in bank.transactions():
            print(credit.reference, credit.amount)
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        profile: BankingProfile | str | os.PathLike[str] | None = None,
        client_name: str = "",
        physical_account: str = "",
        store: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`profile` is a BankingProfile or the path of its file; `client_name` and
        `physical_account` win over those in it. `store` is a SQLite file of the credits that were
        handed over: with it, each comes once; see `transactions`.

        Raises UsageError.
        """
        name, secret = Hidden(client_id), Hidden(client_secret)
        del client_id, client_secret  # tracebacks may show local variables
        identity = Identity(name.value, secret.value)
        if profile is None:
            profile = BankingProfile()
        elif not isinstance(profile, BankingProfile):
            profile = BankingProfile.load(profile)
        self.profile = profile
        self._client_name = client_name or profile.customer.client_name
        self._physical_account = physical_account or profile.customer.physical_account
        self._rules = AccountRules(profile)
        self._store = CreditStore(store) if store is not None else None
        server, plan = profile.server, profile.plan
        self._http = HttpClient(
            connect_timeout=server.connect_timeout,
            tls=trusting(server.ca_file),
            insecure=server.insecure,
        )
        pace = plan.requests_per_second
        per_day = plan.requests_per_day
        self.limiter = Limiter(
            RateLimits(orders=pace, total=pace),
            clock=monotonic,
            quota=DailyQuota(per_day, clock=clock) if per_day else None,
        )
        self._keeper = (
            TokenKeeper(identity, server, http=self._http, limiter=self.limiter, clock=monotonic)
            if server.auth is Auth.OAUTH2
            else None
        )
        calls = BankCalls(
            profile,
            Pass(identity, server, self._keeper),
            http=self._http,
            limiter=self.limiter,
        )
        self._calls = calls
        self._accounts = Accounts(calls)
        self._refunds = Refunds(calls)

    async def __aenter__(self) -> VirtualAccounts:
        """Raises StoreFailed. The bank is not asked for anything yet."""
        if self._store is not None:
            await self._store.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections and store. What is in hand of a batch comes again."""
        if self._keeper is not None:
            await self._keeper.close()
        await self._http.close()
        if self._store is not None:
            await self._store.close()

    # --- accounts -------------------------------------------------------------------------------

    async def create(
        self,
        accounts: VirtualAccount | Iterable[VirtualAccount],
        *,
        physical_account: str = "",
        progress: Progress | None = None,
    ) -> list[AccountResult]:
        """Create accounts, any number: a result for each, in your order.

        One that is there already with the same data is done. Raises InvalidField, and sends
        nothing, when one cannot be right; BankRejected, TransportError and their like when nothing
        of it was done. `progress` is told how many of how many are through.
        """
        items = self._rules.new_accounts(accounts)
        return await self._apply(Call.CREATE, items, physical_account, progress)

    async def modify(
        self,
        changes: AccountChange | Iterable[AccountChange],
        *,
        physical_account: str = "",
        progress: Progress | None = None,
    ) -> list[AccountResult]:
        """Change what is given of each account. Raises as `create` does."""
        items = self._rules.changes(changes)
        return await self._apply(Call.MODIFY, items, physical_account, progress)

    async def delete(
        self,
        numbers: str | Iterable[str],
        *,
        physical_account: str = "",
        progress: Progress | None = None,
    ) -> list[AccountResult]:
        """Delete accounts. Their numbers stay reserved, and credits to them are refused. Raises
        as `create` does."""
        items = self._rules.numbers(numbers)
        return await self._apply(Call.DELETE, items, physical_account, progress)

    async def accounts(
        self, numbers: str | Iterable[str], *, physical_account: str = ""
    ) -> list[AccountState]:
        """Those of these accounts that the bank knows, deleted ones included, in your order.

        Raises UsageError when the bank offers no inquiry.
        """
        items = self._rules.numbers(numbers)
        return await self._accounts.states(self._envelope(Call.INQUIRY, physical_account), items)

    # --- credits --------------------------------------------------------------------------------

    def transactions(self, *, physical_account: str = "", poll: float | None = None) -> Credits:
        """Credits that were not acknowledged yet, in the bank's order; `.batches()` for whole ones.

        It ends when nothing is waiting; with `poll`, it looks again every so many seconds, for
        ever, and failures of network and bank only delay it. A batch is acknowledged when you come
        back after its last credit, so whatever you had not come back for when your process died
        comes again. Without a store every credit comes at least once; with one exactly once, but
        for the one in your hands when the process died, which says `may_be_repeated`.

        Iterating raises BankRejected, TransportError, ServerError, StoreFailed, ProtocolError for
        a batch that is cut or no batch at all, and UnreadableCredit for an entry that is no credit:
        `skip` of what this returns steps over it. Neither is acknowledged.
        """
        if poll is not None and not poll > 0:
            raise InvalidField("poll", poll, "must be above 0 s, or None")
        envelope = self._envelope(Call.FETCH, physical_account)
        source = BatchSource(self._calls, envelope, self._store)
        return Credits(source, poll=poll)

    # --- refunds --------------------------------------------------------------------------------

    async def refund(
        self,
        client_name: str,
        reference: str,
        *,
        amount: Money | None = None,
        reason: str = "",
        account: str = "",
        ifsc_code: str = "",
        idempotency_key: str = "",
    ) -> Refund:
        """Send money back: `amount` rupees of the credit with this transaction reference, or what
        is left of it. Returns the bank's first answer; `refund_status` tells what became of it.

        When the answer is lost, the bank is asked for the refund; it is sent again only where the
        bank has no trace of it, and under the same key, by which the bank would know it. To be
        able to repeat after a crash, too, give a key of your own (a UUID, kept before the call):
        the bank is asked for it first. `account` and `ifsc_code` are for banks whose profile has
        fields for them.

        Raises InvalidField, BankRejected (`refusal` says why), NotSent, RateLimited, or
        RefundUnknown when nobody can tell what became of it.
        """
        values: dict[str, object] = {
            "client_name": self._rules.client_name(client_name),
            "reference": self._rules.reference("reference", reference),
            "amount": None if amount is None else money("amount", amount),
            "reason": self._rules.reason(reason),
            "account": account and bank_account("account", account),
            "ifsc": ifsc_code and ifsc("ifsc_code", ifsc_code),
        }
        given = {name: value for name, value in values.items() if value not in (None, "")}
        for name in ("amount", "reason", "account", "ifsc"):
            if name in given and not self._calls.knows(Call.REFUND, name):
                raise InvalidField(name, given[name], f"the profile has no request.refund.{name}")
        if self._calls.knows(Call.REFUND, "physical_account"):
            given["physical_account"] = self._rules.physical_account(self._physical_account)
        key = self._rules.key(idempotency_key) if idempotency_key else new_key()
        return await self._refunds.create(given, key, is_repeat=bool(idempotency_key))

    async def refund_status(
        self, refund: Refund | str = "", *, idempotency_key: str = ""
    ) -> Refund:
        """What has become of a refund: by itself, the bank's refund reference, or the key under
        which it was asked for.

        Raises UsageError when none is given or the bank offers no such call, and BankRejected
        when the bank knows none.
        """
        values: dict[str, object] = {}
        if isinstance(refund, Refund):
            idempotency_key = idempotency_key or refund.idempotency_key
            refund = refund.refund_reference
        if refund:
            values["refund_reference"] = self._rules.reference("refund", refund)
        elif idempotency_key:
            values["original_request_id"] = self._rules.key(idempotency_key)
        else:
            raise UsageError("refund_status() needs a refund, its reference or its idempotency_key")
        values |= self._envelope(Call.REFUND_STATUS)
        return await self._refunds.status(values, idempotency_key)

    async def settled_refund(self, refund: Refund, *, timeout: float, every: float = 5.0) -> Refund:
        """Follow a refund until it is final, looking every so many seconds. TimeoutError when it
        is not within `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not refund.is_final:
                await asyncio.sleep(every)
                refund = await self.refund_status(refund)
        return refund

    def __repr__(self) -> str:
        if not hasattr(self, "limiter"):
            return "<VirtualAccounts without settings>"  # in the traceback of refused ones
        who = self._client_name or "nobody"
        return f"<VirtualAccounts of {who} at {self.profile.server.base_url}, {self.limiter!r}>"

    async def _apply(
        self,
        call: Call,
        items: list[dict[str, object]],
        physical_account: str,
        progress: Progress | None,
    ) -> list[AccountResult]:
        envelope = self._envelope(call, physical_account)
        for place, item in enumerate(items):
            for name, value in item.items():
                path = f"accounts.{name}"
                if name != "name" and value is not None and not self._calls.knows(call, path):
                    rule = f"the profile has no request.{call}.{path}"
                    raise InvalidField(f"accounts[{place}].{name}", value, rule)
        return await self._accounts.apply(call, envelope, items, progress)

    def _envelope(self, call: Call, physical_account: str = "") -> dict[str, object]:
        """Whose account it is about, as far as the bank wants to be told."""
        envelope: dict[str, object] = {}
        if self._calls.knows(call, "client_name"):
            envelope["client_name"] = self._rules.client_name(self._client_name)
        if self._calls.knows(call, "physical_account"):
            wanted = physical_account or self._physical_account
            envelope["physical_account"] = self._rules.physical_account(wanted)
        return envelope
