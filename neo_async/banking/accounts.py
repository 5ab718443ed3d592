"""Create, modify, delete and look up virtual accounts, in batches, with a result for each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

from neo_async.banking.answers import ResultReader, StateReader
from neo_async.banking.calls import UNCLEAR, BankCalls
from neo_async.banking.model import (
    AccountResult,
    AccountState,
    AccountStatus,
    Outcome,
    Refusal,
)
from neo_async.banking.names import Call
from neo_async.banking.rules import Item
from neo_async.base import logs
from neo_async.errors import BankRejected, NeoError

log = logging.getLogger(logs.BANKING)

Progress: TypeAlias = Callable[[int, int], None]
"""Callback that gets the number of accounts done, and their total."""

Results: TypeAlias = dict[str, AccountResult]

_NO_RESULT = "the bank's answer has no result for this account"


class Accounts:
    """Sends accounts in batches, and looks up those whose outcome is unknown."""

    def __init__(self, calls: BankCalls) -> None:
        self._calls = calls
        self._readers = {
            call: ResultReader(calls.profile, call, calls.refusals)
            for call in (Call.CREATE, Call.MODIFY, Call.DELETE)
        }
        self._states = StateReader(calls.profile, calls.refusals, calls.formats)

    async def apply(
        self,
        call: Call,
        envelope: Mapping[str, object],
        items: list[Item],
        progress: Progress | None = None,
    ) -> list[AccountResult]:
        """Create, modify or delete accounts. Raises when none can have been changed; after that,
        failures are in the results."""
        results: Results = {}
        failure: NeoError | None = None
        size = self._calls.profile.format.max_items
        if progress is not None:
            progress(0, len(items))
        for first in range(0, len(items), size):
            try:
                results |= await self._batch(call, envelope, items[first : first + size])
            except NeoError as error:
                if not results:
                    raise
                failure = error
                break
            if progress is not None:
                progress(len(results), len(items))
        return [
            results.get(number) or AccountResult(number, Outcome.NOT_SENT, str(failure))
            for number in (str(item["number"]) for item in items)
        ]

    async def states(self, envelope: Mapping[str, object], items: list[Item]) -> list[AccountState]:
        """Return the existing accounts, in the order of the items."""
        found: dict[str, AccountState] = {}
        size = self._calls.profile.format.max_items
        for first in range(0, len(items), size):
            found |= await self._inquire(envelope, items[first : first + size])
        return [found[number] for item in items if (number := str(item["number"])) in found]

    async def _batch(
        self, call: Call, envelope: Mapping[str, object], items: list[Item]
    ) -> Results:
        """Send one batch. When the bank refuses it as a whole for its content, its halves are sent,
        so that the faulty accounts are found and the others are done."""
        results: Results = {}
        pending = [items]
        refusals = 0
        is_answered = False
        # Twice the refusals that it takes to find one faulty account. After more, the bank probably
        # refuses every account, and the rest is sent undivided.
        patience = 2 * len(items).bit_length()
        while pending:
            part = pending.pop()
            try:
                results |= await self._send(call, envelope, part)
                is_answered = True
            except BankRejected as refusal:
                if refusal.refusal != Refusal.INPUT:
                    if not results:
                        raise
                    results |= _all(part, Outcome.REFUSED, refusal)
                    continue
                refusals += 1
                if len(part) > 1 and (is_answered or refusals <= patience):
                    middle = len(part) // 2
                    pending += [part[middle:], part[:middle]]
                else:
                    results |= _all(part, Outcome.REFUSED, refusal)
            except NeoError as error:
                if not results:
                    raise
                for rest in (part, *pending):
                    results |= _all(rest, Outcome.NOT_SENT, error)
                break
        return results

    async def _send(self, call: Call, envelope: Mapping[str, object], items: list[Item]) -> Results:
        request = self._calls.request(call, envelope, items=items)
        send = self._calls.send_until_answered if self._calls.repeatable(call) else self._calls.send
        try:
            answered = self._calls.read_content(self._readers[call].read, await send(request))
        except UNCLEAR as error:
            log.warning("%s of %d accounts: %s", call, len(items), error)
            return await self._look_up(call, envelope, items, str(error))
        results: Results = {}
        unanswered: list[Item] = []
        for item in items:
            number = str(item["number"])
            result = answered.get(number)
            words = self._calls.secrets.scrub(result.message) if result is not None else ""
            if result is None or (not result.is_done and result.refusal is None):
                unanswered.append(item)
            elif result.is_done:
                results[number] = AccountResult(number, Outcome.DONE, words, result.code)
            else:
                results[number] = AccountResult(
                    number, Outcome.REFUSED, words, result.code, result.refusal
                )
        if unanswered:
            results |= await self._look_up(call, envelope, unanswered, _NO_RESULT)
        if call is Call.CREATE:
            await self._accept_existing(envelope, items, results)
        return results

    async def _accept_existing(
        self, envelope: Mapping[str, object], items: list[Item], results: Results
    ) -> None:
        """Count an account as done that exists with exactly the requested data: most likely an
        earlier run of the same program created it."""
        taken = [
            item for item in items if results[str(item["number"])].refusal is Refusal.DUPLICATE
        ]
        for number, state in (await self._try_states(envelope, taken)).items():
            item = next(item for item in taken if item["number"] == number)
            if _shows(Call.CREATE, item, state):
                code = results[number].code
                reason = "exists already, with the same data"
                results[number] = AccountResult(number, Outcome.DONE, reason, code)

    async def _look_up(
        self, call: Call, envelope: Mapping[str, object], items: list[Item], why: str
    ) -> Results:
        """Return results for accounts whose answer is missing, by looking them up."""
        results: Results = {}
        states = await self._try_states(envelope, items)
        for item in items:
            number = str(item["number"])
            state = states.get(number)
            if state is not None and _shows(call, item, state):
                results[number] = AccountResult(number, Outcome.DONE, f"looked up ({why})")
            else:
                results[number] = AccountResult(number, Outcome.UNKNOWN, why)
        return results

    async def _try_states(
        self, envelope: Mapping[str, object], items: list[Item]
    ) -> dict[str, AccountState]:
        """Return the states of accounts; empty when the bank offers no inquiry, or it fails."""
        if not items or not self._calls.offers(Call.INQUIRY):
            return {}
        try:
            return await self._inquire(envelope, items)
        except NeoError as error:
            log.warning("%d accounts could not be looked up: %s", len(items), error)
            return {}

    async def _inquire(
        self, envelope: Mapping[str, object], items: list[Item]
    ) -> dict[str, AccountState]:
        numbers = [{"number": item["number"]} for item in items]
        request = self._calls.request(Call.INQUIRY, envelope, items=numbers)
        content = await self._calls.send_until_answered(request)
        states = self._calls.read_content(self._states.states, content)
        return {state.number: state for state in states}


def _all(items: list[Item], outcome: Outcome, error: NeoError) -> Results:
    code, refusal = "", None
    if isinstance(error, BankRejected):
        code, refusal = str(error.code or ""), Refusal(error.refusal)
    numbers = (str(item["number"]) for item in items)
    return {number: AccountResult(number, outcome, str(error), code, refusal) for number in numbers}


def _shows(call: Call, item: Item, state: AccountState) -> bool:
    """Return whether an account is as the request would have made it."""
    if call is Call.DELETE:
        return state.status is AccountStatus.DELETED
    if state.status is AccountStatus.DELETED:
        return False
    if call is Call.CREATE:
        item = dict.fromkeys(_OPTIONAL) | item
    if not item.keys().isdisjoint(state.unreadable):
        return False  # None may be an unreadable value of the bank
    return all(
        getattr(state, name) == (_ABSENT.get(name) if value is None else value)
        for name, value in item.items()
    )


_OPTIONAL = ("valid_from", "valid_to", "min_amount", "max_amount", "mobile", "email", "description")
_ABSENT = {"mobile": "", "email": "", "description": ""}
"""Value in AccountState of a missing text; for other fields it is None."""
