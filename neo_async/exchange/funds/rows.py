"""Rows of the fund simulator's records, in Kite's shapes."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import datetime
from typing import Final

from neo_async.base.india import IST
from neo_async.exchange.funds.simulator import FundSimulator
from neo_async.exchange.funds.types import FundHolding, OrderRecord, Side, SipRecord

_COLUMNS: Final = (
    "tradingsymbol",
    "amc",
    "name",
    "purchase_allowed",
    "redemption_allowed",
    "minimum_purchase_amount",
    "purchase_amount_multiplier",
    "minimum_additional_purchase_amount",
    "minimum_redemption_quantity",
    "redemption_quantity_multiplier",
    "dividend_type",
    "scheme_type",
    "plan",
    "settlement_type",
    "last_price",
    "last_price_date",
)


def order_row(simulator: FundSimulator, order: OrderRecord, placed_by: str) -> dict[str, object]:
    is_executed = order.nav > 0
    return {
        "status": order.state,
        "purchase_type": order.purchase_type,
        "folio": order.folio if order.side is Side.BUY else None,
        "order_timestamp": timestamp(order.placed_s),
        "average_price": order.nav / 10_000,
        "exchange_order_id": order.exchange_order_id,
        "last_price": simulator.nav(order.isin) / 10_000,
        "tradingsymbol": order.isin,
        "settlement_id": order.settlement_id,
        "transaction_type": order.side,
        "order_id": order.order_id,
        "amount": order.amount / 100,
        "tag": order.tag,
        "placed_by": placed_by,
        "exchange_timestamp": order.exchange_day,
        "variety": order.variety,
        "last_price_date": simulator.state.nav_day,
        "status_message": order.message,
        "fund": simulator.scheme(order.isin).name,
        "quantity": order.units / 1000 if is_executed or order.side is Side.SELL else 0.0,
    }


def sip_row(simulator: FundSimulator, sip: SipRecord) -> dict[str, object]:
    scheme = simulator.scheme(sip.isin)
    return {
        "status": sip.state,
        "sip_reg_num": None,
        "created": timestamp(sip.created_s),
        "dividend_type": scheme.dividend_type,
        "instalment_amount": sip.amount / 100,
        "fund": scheme.name,
        "instalments": sip.instalments,
        "next_instalment": simulator.next_instalment(sip),
        "transaction_type": Side.BUY,
        "trigger_price": 0,
        "step_up": sip.step_up,
        "tradingsymbol": sip.isin,
        "tag": sip.tag,
        "frequency": sip.frequency,
        "last_instalment": timestamp(sip.last_instalment_s),
        "pending_instalments": sip.pending,
        "instalment_day": sip.instalment_day,
        "sip_type": "sip",
        "completed_instalments": sip.completed,
        "sip_id": sip.sip_id,
    }


def holding_row(simulator: FundSimulator, holding: FundHolding) -> dict[str, object]:
    """Return the row of a holding. `pnl` and `last_price_date` are as empty as in every sample of
    the document."""
    return {
        "folio": holding.folio,
        "average_price": round(holding.cost * 10 / holding.units, 6),
        "last_price": simulator.nav(holding.isin) / 10_000,
        "last_price_date": "",
        "pledged_quantity": 0,
        "fund": simulator.scheme(holding.isin).name,
        "tradingsymbol": holding.isin,
        "pnl": 0,
        "quantity": holding.units / 1000,
    }


def instruments_file(simulator: FundSimulator) -> bytes:
    """Return the gzipped CSV of all schemes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for scheme in simulator.schemes.values():
        writer.writerow(
            (
                scheme.isin,
                scheme.amc,
                scheme.name,
                int(scheme.purchase_allowed),
                int(scheme.redemption_allowed),
                scheme.minimum_purchase / 100,
                scheme.purchase_multiple / 100,
                scheme.minimum_additional / 100,
                scheme.minimum_redemption / 1000,
                scheme.redemption_multiple / 1000,
                scheme.dividend_type,
                scheme.scheme_type,
                scheme.plan,
                scheme.settlement_type,
                simulator.nav(scheme.isin) / 10_000,
                simulator.state.nav_day,
            )
        )
    return gzip.compress(text.getvalue().encode(), mtime=0)


def timestamp(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, IST):%Y-%m-%d %H:%M:%S}"
