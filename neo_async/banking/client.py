"""`VirtualAccounts`, the client for virtual accounts: it composes the services and owns them."""

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
from neo_async.banking.token import Authentication, Identity, TokenKeeper
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
        """Take a BankingProfile or the path of its file as `profile`. KOTAK_BANK_URL takes
        precedence over the address in a file, and over the bank's own; `client_name` and
        `physical_account` take precedence over those in it. `store` is the path of a SQLite file of
        the credits already delivered: with it, each is delivered once; see `transactions`.

        Raises UsageError.
        """
        name, secret = Hidden(client_id), Hidden(client_secret)
        del client_id, client_secret  # tracebacks may show local variables
        identity = Identity(name.value, secret.value)
        if profile is None:
            profile = BankingProfile().at_server_of_environment()
        elif not isinstance(profile, BankingProfile):
            profile = BankingProfile.load(profile).at_server_of_environment()
        elif not profile.is_paper and profile.at_server_of_environment().is_paper:
            raise UsageError(
                f"the profile leads to {profile.server.base_url}, and KOTAK_BANK_URL to a bank on "
                "this machine: change or unset one of them"
            )
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
            Authentication(identity, server, self._keeper),
            http=self._http,
            limiter=self.limiter,
        )
        self._calls = calls
        self._accounts = Accounts(calls)
        self._refunds = Refunds(calls)

    async def __aenter__(self) -> VirtualAccounts:
        """Open the store. Raises StoreFailed. Nothing is sent to the bank yet."""
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
        """Close connections and store. Credits that are not done will be delivered again."""
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
        """Create any number of accounts. Return a result for each, in the same order.

        An account that exists with the same data is done. Raises InvalidField, and sends nothing,
        when one is invalid; BankRejected, TransportError and the like when none was created.
        `progress` is called with the number of finished accounts and their total.
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
        """Change the given fields of each account. Raises as `create` does."""
        items = self._rules.changes(changes)
        return await self._apply(Call.MODIFY, items, physical_account, progress)

    async def delete(
        self,
        numbers: str | Iterable[str],
        *,
        physical_account: str = "",
        progress: Progress | None = None,
    ) -> list[AccountResult]:
        """Delete accounts. Their numbers stay reserved, and credits to them are refused. Raises as
        `create` does."""
        items = self._rules.numbers(numbers)
        return await self._apply(Call.DELETE, items, physical_account, progress)

    async def accounts(
        self, numbers: str | Iterable[str], *, physical_account: str = ""
    ) -> list[AccountState]:
        """Return those of the accounts that exist, deleted ones included, in the same order.

        Raises UsageError when the bank offers no inquiry.
        """
        items = self._rules.numbers(numbers)
        return await self._accounts.states(self._envelope(Call.INQUIRY, physical_account), items)

    # --- credits --------------------------------------------------------------------------------

    def transactions(self, *, physical_account: str = "", poll: float | None = None) -> Credits:
        """Iterate over credits that were not acknowledged yet, in the bank's order; use
        `.batches()` for whole batches.

        It ends when there are no more; with `poll`, it looks again every so many seconds, for ever,
        and failures of network and bank only delay it. A batch is acknowledged when you ask for
        another credit after its last one, so credits that were not done when your process ended are
        delivered again. Without a store every credit is delivered at least once; with one exactly
        once, except the one being processed when the process ended, which has `may_be_repeated`.

        Iterating raises BankRejected, TransportError, ServerError, StoreFailed, ProtocolError for a
        batch that is cut or malformed, and UnreadableCredit for an entry that is not a credit;
        `skip` of the returned object skips it. Neither is acknowledged.
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
        """Send money back: `amount` rupees of the credit with this transaction reference, or all
        that is left of it. Return the bank's first answer; `refund_status` returns later states.

        When the answer is lost, the refund is looked up. It is sent again only when the bank has no
        record of it, and under the same key, by which the bank would recognise it. To be able to
        repeat it after a crash, too, pass a key of your own (a UUID, stored before the call): the
        refund is then looked up first. `account` and `ifsc_code` are for banks whose profile has
        fields for them.

        Raises InvalidField, BankRejected (with the reason in `refusal`), NotSent, RateLimited, or
        RefundUnknown when the outcome cannot be established.
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
            if name in given and not self._calls.has_field(Call.REFUND, name):
                raise InvalidField(name, given[name], f"the profile has no request.refund.{name}")
        if self._calls.has_field(Call.REFUND, "physical_account"):
            given["physical_account"] = self._rules.physical_account(self._physical_account)
        key = self._rules.key(idempotency_key) if idempotency_key else new_key()
        return await self._refunds.create(given, key, is_repeat=bool(idempotency_key))

    async def refund_status(
        self, refund: Refund | str = "", *, idempotency_key: str = ""
    ) -> Refund:
        """Return the state of a refund, given as a Refund, by the bank's refund reference, or by
        the key of its request.

        Raises UsageError when none is given or the bank offers no such call, and BankRejected when
        the bank has no such refund.
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
        """Poll a refund until it is final, every so many seconds. Raises TimeoutError when it is
        not within `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not refund.is_final:
                await asyncio.sleep(every)
                refund = await self.refund_status(refund)
        return refund

    def __repr__(self) -> str:
        if not hasattr(self, "limiter"):
            return "<VirtualAccounts without settings>"  # in a traceback of __init__
        owner = f" of {self._client_name}" if self._client_name else ""
        return f"<VirtualAccounts{owner} at {self.profile.server.base_url}, {self.limiter!r}>"

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
                if name != "name" and value is not None and not self._calls.has_field(call, path):
                    rule = f"the profile has no request.{call}.{path}"
                    raise InvalidField(f"accounts[{place}].{name}", value, rule)
        return await self._accounts.apply(call, envelope, items, progress)

    def _envelope(self, call: Call, physical_account: str = "") -> dict[str, object]:
        """Return the customer's identity, as far as the bank has fields for it."""
        envelope: dict[str, object] = {}
        if self._calls.has_field(call, "client_name"):
            envelope["client_name"] = self._rules.client_name(self._client_name)
        if self._calls.has_field(call, "physical_account"):
            wanted = physical_account or self._physical_account
            envelope["physical_account"] = self._rules.physical_account(wanted)
        return envelope
