"""Exit plans as commands show them: a table of those in a journal, and a line for each change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from neo_async.base.india import IST
from neo_async.cli import output
from neo_async.cli.csv_output import CsvWriter
from neo_async.cli.output import NOTHING, Cell, money, side_name
from neo_async.cli.prompts import tell_interruption
from neo_async.cli.table_layout import Column
from neo_async.client import NeoClient
from neo_async.errors import JournalFailed, NotLoggedIn
from neo_async.execution.journal_file import read_all_plans
from neo_async.execution.order import Order
from neo_async.exits.plan import ExitPlan, PlanChange
from neo_async.exits.state import PlanState, PlanStatus
from neo_async.exits.trigger import PriceTrigger, TriggerState

FIELDS = ("kind", *output.columns_of(PlanChange))
"""Columns of the changes of plans in CSV."""
KEPT_FIELDS = (
    "account",
    *(name for name in FIELDS if name != "at"),
    *("watched", "above", "below", "until", "order"),
)
"""Columns of the plans and triggers of a journal in CSV."""

_NUMBER = True
_STYLES = {
    PlanStatus.ENTERING: "cyan",
    PlanStatus.OPEN: "cyan",
    PlanStatus.EXITED: "green",
    PlanStatus.CANCELLED: "dim",
    PlanStatus.FAILED: "red",
}

_decoder = msgspec.json.Decoder(PlanState | TriggerState)


class Kept(msgspec.Struct, frozen=True):
    """A plan or a price trigger as a journal holds it."""

    account: str
    state: PlanState | TriggerState

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state.status.is_final


def read_journal(path: Path) -> list[Kept]:
    """Return the plans and price triggers in a journal, which another process may be writing.
    Raises JournalFailed."""
    kept = []
    for account, text in read_all_plans(path):
        try:
            kept.append(Kept(account, _decoder.decode(text)))
        except msgspec.MsgspecError as error:
            raise JournalFailed(
                f"the journal {path}: a plan of account {account} cannot be read: {error}"
            ) from error
    return kept


# --- a journal's plans ----------------------------------------------------------------------------


def print_kept(rows: Sequence[Kept]) -> None:
    """Print plans, and below them price triggers."""
    has_accounts = len({row.account for row in rows}) > 1
    plans = [(row, row.state) for row in rows if isinstance(row.state, PlanState)]
    triggers = [(row, row.state) for row in rows if isinstance(row.state, TriggerState)]
    if plans:
        changes = [PlanChange.of(state, at=0) for _, state in plans]
        accounts = [row.account if has_accounts else NOTHING for row, _ in plans]
        print_plans(changes, accounts)
    if plans and triggers:
        output.echo()
    if triggers:
        _print_triggers(
            [(row.account if has_accounts else NOTHING, state) for row, state in triggers]
        )


def print_plans(rows: Sequence[PlanChange], accounts: Sequence[str] = ()) -> None:
    """Print a table of plans, and below it why units are without an exit or a plan has ended."""
    columns = (
        Column("Plan", is_whole=True),
        Column("Account", is_whole=True, is_optional=True, rank=1),
        Column("Symbol", is_whole=True),
        Column("Side", rank=3),
        Column("Product", rank=5),
        Column("Open", _NUMBER),
        Column("No exit", _NUMBER, is_optional=True),
        Column("Entry", _NUMBER, is_optional=True, rank=4),
        Column("Stop", _NUMBER, is_optional=True),
        Column("Target", _NUMBER, is_optional=True),
        Column("Trail", _NUMBER, is_optional=True, rank=2),
        Column("State", comfortable=9),
    )
    output.print_table(
        columns,
        (
            (
                row.plan,
                account,
                row.symbol,
                side_name(row.side),
                row.product,
                f"{row.open_quantity:,}/{row.quantity:,}",
                Cell(f"{row.unprotected:,}", "red") if row.unprotected else NOTHING,
                *map(_price, (row.entry_price, row.stop, row.target, row.trail)),
                Cell(state_of(row), _STYLES[row.status]),
            )
            for row, account in zip(rows, accounts or [NOTHING] * len(rows), strict=True)
        ),
    )
    output.print_notes(f"{row.plan}: {row.reason}" for row in rows if row.reason)


def _print_triggers(rows: Sequence[tuple[str, TriggerState]]) -> None:
    columns = (
        Column("Trigger", is_whole=True),
        Column("Account", is_whole=True, is_optional=True, rank=2),
        Column("Watched", is_whole=True),
        Column("Price"),
        Column("Places"),
        Column("Until", is_whole=True, is_optional=True, rank=1),
        Column("State", comfortable=9),
    )
    output.print_table(
        columns,
        (
            (
                state.id,
                account,
                state.instrument,
                level_of(state),
                f"{side_name(state.order.side)} {state.order.quantity:,} {state.order.symbol}",
                NOTHING if state.until is None else state.until.isoformat(),
                state.status.value,
            )
            for account, state in rows
        ),
    )
    output.print_notes(f"{state.id}: {state.reason}" for _, state in rows if state.reason)


def level_of(state: TriggerState) -> str:
    """Return the price of a trigger: `above 40.50`."""
    if state.above is not None:
        return f"above {money(float(state.above))}"
    return f"below {money(float(state.below or 0))}"


def state_of(row: PlanChange) -> str:
    """Return the state of a plan, and what exited it: `exited by stop`."""
    return f"{row.status} by {row.exited_by}" if row.exited_by else row.status.value


def kept_fields(row: Kept) -> dict[str, Any]:
    """Return a plan or trigger of a journal for JSON and CSV."""
    state = row.state
    if isinstance(state, PlanState):
        fields = plan_fields(PlanChange.of(state, at=0))
        del fields["at"]
        return {"account": row.account} | fields
    order = state.order
    return {
        "account": row.account,
        "kind": "trigger",
        "plan": state.id,
        "segment": order.segment,
        "symbol": order.symbol,
        "side": side_name(order.side),
        "product": order.product,
        "status": state.status,
        "quantity": order.quantity,
        "watched": state.instrument,
        "above": _rupees(state.above),
        "below": _rupees(state.below),
        "until": state.until,
        "order": state.number or None,
        "reason": state.reason,
    }


def plan_fields(change: PlanChange) -> dict[str, Any]:
    """Return the state of a plan for JSON and CSV; prices are numbers, as in every report."""
    fields: dict[str, Any] = {"kind": "plan"} | output.plain(change)
    for name in ("entry_price", "stop", "target", "trail"):
        fields[name] = _rupees(getattr(change, name))
    return fields


def _rupees(price: Decimal | None) -> float | None:
    return None if price is None else float(price)


def _price(price: Decimal | None) -> str:
    return NOTHING if price is None else money(float(price))


# --- live plans -----------------------------------------------------------------------------------


def way_to_show(*, as_json: bool, as_csv: bool) -> Callable[[ExitPlan, PlanChange], None]:
    """Return a function that prints a change: as JSON or CSV, a line each, or in words."""
    if as_json:
        return lambda plan, change: output.print_json(plan_fields(change))
    if as_csv:
        writer = CsvWriter(FIELDS)
        return lambda plan, change: writer.write(
            [[fields.get(name) for name in FIELDS] for fields in [plan_fields(change)]]
        )
    return lambda plan, change: output.print_sentence(sentence(plan, change))


def sentence(plan: ExitPlan, change: PlanChange) -> str:
    """Return a change in words, after the time in India."""
    at = datetime.fromtimestamp(change.at, IST)
    return (
        f"{at:%H:%M:%S} {change.symbol} ({change.plan}) {state_of(change)}: {_facts(plan, change)}"
    )


def _facts(plan: ExitPlan, change: PlanChange) -> str:
    parts = list(_quantities(plan, change))
    if not change.status.is_final:
        parts += [
            f"{name} {money(float(price))}"
            for name, price in (("stop", change.stop), ("target", change.target))
            if price is not None
        ]
    if change.unprotected and not change.status.is_final:
        parts.append(
            f"{change.unprotected:,} without an exit order{'' if change.reason else ' yet'}"
        )
    if change.reason:
        parts.append(change.reason)
    return ", ".join(parts)


def _quantities(plan: ExitPlan, change: PlanChange) -> Iterator[str]:
    """Yield what was entered and is held, and at the end what it was exited at."""
    entered, is_long = change.entered, change.side == "B"
    at = "" if change.entry_price is None else f" at {money(float(change.entry_price))}"
    if change.status is PlanStatus.ENTERING:
        yield f"{entered:,} of {change.quantity:,} {'bought' if is_long else 'sold'}{at}"
    elif not change.status.is_final:
        yield f"{change.open_quantity:,} held{at}"
    elif not entered:
        yield "nothing entered"
    elif change.open_quantity:
        yield f"{change.open_quantity:,} still held{at}"
    else:
        yield f"{entered:,} {'bought' if is_long else 'sold'}{at}"
        exits = [order for order in plan.exits if order.filled_quantity]
        if units := sum(order.filled_quantity for order in exits):
            value = sum(order.filled_quantity * order.average_price for order in exits)
            yield f"{units:,} {'sold' if is_long else 'bought'} at {money(value / units)}"


async def follow(
    neo: NeoClient, show: Callable[[ExitPlan, PlanChange], None], *, journal: Path | None
) -> bool:
    """Show every change of the client's plans until all have ended. Return whether none failed. An
    interruption says what it leaves at the broker."""
    plans, triggers = neo.exits.plans, neo.exits.triggers
    try:
        await asyncio.gather(
            *(_follow(plan, show) for plan in plans), *map(_follow_trigger, triggers)
        )
    except asyncio.CancelledError:
        for plan in plans:
            if not plan.is_final:
                tell_interruption(what_is_left(plan, journal))
        for trigger in triggers:
            if not trigger.status.is_final:
                tell_interruption(f"trigger {trigger.id} waits for the next start on its journal")
        raise
    return all(plan.state is not PlanStatus.FAILED for plan in plans)


async def _follow(plan: ExitPlan, show: Callable[[ExitPlan, PlanChange], None]) -> None:
    async for change in plan.changes():
        show(plan, change)
    if not plan.is_final:
        raise NotLoggedIn(f"logged out while plan {plan.id} was under way")


async def _follow_trigger(trigger: PriceTrigger) -> None:
    status = await trigger.wait()
    why = f": {trigger.reason}" if trigger.reason else ""
    output.print_sentence(
        f"trigger {trigger.id} of {trigger.instrument} is {status}{why}", err=True
    )


def what_is_left(plan: ExitPlan, journal: Path | None) -> str:
    """Return what a program that ends now leaves of a plan."""
    parts = []
    if entries := _open(plan.entries):
        parts.append(
            f"the entry {_numbers(entries)} stays open at the broker, and what fills of it "
            "meanwhile has no stop"
        )
    exits = _open(plan.exits)
    if exits:
        stops = [order for order in exits if order.trigger is not None]
        parts.append(
            f"the stop {_numbers(stops)} stays at the broker"
            if stops
            else f"the target {_numbers(exits)} stays at the broker, without a stop"
        )
    if plan.unprotected:
        parts.append(f"{plan.unprotected:,} units have no exit order")
    if journal is not None:
        parts.append(
            "the plan goes on with the next start on this journal: neo-async exits --journal "
            f"{journal} --resume"
        )
    else:
        unwatched = "" if plan.target is None else ", and nothing watches its target"
        parts.append(f"the plan ends here, as it is in no journal{unwatched}")
    return f"{plan.symbol} ({plan.id}): {'; '.join(parts)}"


def _open(orders: Iterable[Order]) -> list[Order]:
    return [order for order in orders if not order.is_final]


def _numbers(orders: Sequence[Order]) -> str:
    return ", ".join(order.number for order in orders)
