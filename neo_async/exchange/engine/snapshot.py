"""A whole matching engine as plain values, to be stored and to be built again from.

`MatchingEngine.snapshot` makes an `EngineState` of the snapshots of its parts,
`MatchingEngine.restored` an engine from it. Orders, session figures and listings in a state are the
engine's own objects: encode it before the next command.
"""

from __future__ import annotations

import msgspec

from neo_async.exchange.engine.accounts import AccountState
from neo_async.exchange.engine.clock import ClockState
from neo_async.exchange.engine.ledger import LedgerState
from neo_async.exchange.engine.listed_instruments import ListedInstrumentsState
from neo_async.exchange.engine.market_makers import MarketMakersState
from neo_async.exchange.engine.matching import MatchingState
from neo_async.exchange.engine.oco_group import OcoGroup
from neo_async.exchange.engine.session_schedule import SessionScheduleState
from neo_async.exchange.engine.types import OrderRecord, Rules


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a matching engine, in the order in which they are restored."""

    rules: Rules
    clock: ClockState
    ledger: LedgerState
    orders: list[OrderRecord]
    """Orders of the ledger; empty when they are stored elsewhere."""
    queued: list[str]
    """Numbers of the after-market orders that wait for the open."""
    accounts: list[AccountState]
    listed: ListedInstrumentsState
    market_makers: MarketMakersState
    matching: MatchingState
    contingent_orders: list[OcoGroup]
    schedule: SessionScheduleState
