"""Rows of the order book, the order history, the trade book and the order feed."""

from __future__ import annotations

from typing import Final

from neo_async.exchange.engine.types import Fill, OrderRecord, Transition
from neo_async.exchange.rest.fields import (
    ALGO,
    BRANCH,
    LOCATION,
    NONE,
    NS,
    Row,
    average_text,
    date_time,
    expiry_text,
    instrument_fields,
    kind_text,
    option_type_text,
    order_source,
    rupees,
    second_texts,
    series_text,
    sortable_time,
)
from neo_async.model.enums import OrderStatus

# --- orders and trades --------------------------------------------------------------------------


_ORDER_CONSTANTS: Final[Row] = {
    "actId": "",
    **ALGO,
    "brkClnt": BRANCH,
    "coPct": 0,
    "defMktProV": "0",
    "dscQtyPct": "0",
    "exUsrInfo": "NA",
    "expDtSsb": "-",
    "mktProPct": NONE,
    "mfdBy": "NA",
    "minQty": 0,
    "mktProFlg": "0",
    "noMktProFlg": "0",
    "ordAutSt": "NA",
    "odCrt": "NA",
    "ordValDt": "NA",
    "refLmtPrc": 0,
    "rmk": NONE,
    "rptTp": "NA",
    "sipInd": "NA",
    "usrId": "",
    "classification": "0",
    "vendorCode": "",
    "locId": LOCATION,
    "appInstlId": "NA",
    "ordModNo": "",
    "strategyCode": "NA",
}


def order_row(order: OrderRecord) -> Row:
    """Return a row of the order book."""
    listing = order.listing
    second = order.updated_ns // NS
    entered = date_time(order.accepted_ns)
    return {
        **_ORDER_CONSTANTS,
        **instrument_fields(listing),
        "avgPrc": average_text(order.average_price),
        "brdLtQty": str(listing.lot_size),
        "cnlQty": order.cancelled_quantity,
        "dscQty": order.disclosed_quantity,
        "exCfmTm": date_time(order.exchange_ns),
        "exOrdId": order.exchange_number,
        "fldQty": order.filled_quantity,
        "boeSec": second,
        "mktPro": f"{order.protection_percent:g}",
        "nOrdNo": order.number,
        "optTp": option_type_text(listing, "- "),
        "ordDtTm": entered,
        "ordEntTm": entered,
        "ordGenTp": "AMO" if order.amo else "NA",
        "ordSrc": order_source(order.source),
        "prod": order.product.value,
        "prc": rupees(order.price),
        "prcTp": order.order_type.value,
        "qty": order.quantity,
        "rejRsn": order.reject_reason or NONE,
        "reqId": str(order.request_id),
        "stat": order.status.value,
        "ordSt": order.status.value,
        "symOrdId": order.parent_number or "NA",
        "tckSz": f"{listing.tick / 100:.4f}",
        "tok": listing.token,
        "trnsTp": order.side.value,
        "trgPrc": rupees(order.trigger),
        "unFldSz": order.pending_quantity,
        "uSec": str(second),
        "vldt": order.validity.value,
        "hsUpTm": sortable_time(order.updated_ns),
        "GuiOrdId": order.gui_order_id,
        "updRecvTm": order.updated_ns,
        "it": kind_text(listing),
    }


def order_update(order: OrderRecord, state: Transition) -> Row:
    """Return `data` of the order feed's message about a state that an order has reached."""
    listing = order.listing
    second = state.time_ns // NS
    at_exchange = state.exchange_number != "NA"
    pending = 0 if state.status in _CANCELLED else state.quantity - state.filled_quantity
    return {
        "nOrdNo": order.number,
        "exOrdId": state.exchange_number,
        "ordSt": state.status.value,
        "rejRsn": state.reject_reason or NONE,
        "GuiOrdId": state.gui_order_id,
        "qty": state.quantity,
        "fldQty": state.filled_quantity,
        "unFldSz": pending,
        "dscQty": order.disclosed_quantity,
        "avgPrc": average_text(state.average_price),
        "prc": rupees(state.price),
        "trgPrc": rupees(state.trigger),
        "stkPrc": rupees(listing.strike),
        "trnsTp": order.side.value,
        "prcTp": state.order_type.value,
        "prod": order.product.value,
        "vldt": state.validity.value,
        "exSeg": listing.segment.value,
        "sym": listing.name,
        "trdSym": listing.symbol,
        "tok": listing.token,
        "series": series_text(listing),
        "optTp": option_type_text(listing, "- "),
        "it": kind_text(listing),
        "expDt": expiry_text(listing.expiry),
        "ordDtTm": date_time(order.accepted_ns),
        "exCfmTm": date_time(order.exchange_ns) if at_exchange else NONE,
        "hsUpTm": sortable_time(state.time_ns),
        "updRecvTm": state.time_ns,
        "boeSec": second,
        "uSec": str(second),
        "brdLtQty": str(listing.lot_size),
        "lotSz": str(listing.lot_size),
        "multiplier": "1",
        "precision": "2",
        "mktPro": f"{order.protection_percent:g}",
        "actId": order.account,
        "usrId": order.account,
        "ordSrc": order_source(order.source),
        "ordGenTp": "AMO" if order.amo else "NA",
        "ordValDt": "NA",
        "symOrdId": order.parent_number or "NA",
        "reqId": str(state.request_id),
        "mfdBy": "NA",
        "strategyCode": "NA",
    }


_CANCELLED: Final = (OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED)


_HISTORY_CONSTANTS: Final[Row] = {
    **ALGO,
    "rptTp": "NA",
    "cstFrm": "C",
    "legOrdInd": "NA",
    "ordUsrMsg": "NA",
    "mfdBy": "XX",
    "vendorCode": "",
    "classification": "0",
    "locId": LOCATION,
    "strategyCode": "NA",
    "ordValDt": "NA",
}


def history_row(order: OrderRecord, state: Transition) -> Row:
    """Return a row of an order's history: a state that it went through."""
    listing = order.listing
    at_exchange = state.exchange_number != "NA"
    return {
        **_HISTORY_CONSTANTS,
        **instrument_fields(listing),
        "prc": rupees(state.price),
        "qty": state.quantity,
        "ordSt": state.status.value,
        "trnsTp": order.side.value,
        "prcTp": state.order_type.value,
        "brdLtQty": listing.lot_size,
        "exch": listing.segment.value.partition("_")[0].upper(),
        "exchTmstp": date_time(order.exchange_ns) if at_exchange else NONE,
        "tok": listing.token,
        "nOrdNo": order.number,
        "nReqId": str(state.request_id),
        "avgPrc": average_text(state.average_price),
        "trgPrc": rupees(state.trigger),
        "dclQty": str(order.disclosed_quantity),
        "exchOrdId": state.exchange_number,
        "rejRsn": state.reject_reason or NONE,
        "ordDur": state.validity.value,
        "prod": order.product.value,
        "ordSrc": order_source(order.source),
        "flDtTm": date_time(state.time_ns),
        "ordGenTp": "AMO" if order.amo else NONE,
        "scripName": listing.name,
        "fldQty": state.filled_quantity,
        "unFldSz": max(0, state.quantity - state.filled_quantity),
        "mktPro": f"{order.protection_percent:.2f}",
        "GuiOrdId": state.gui_order_id,
        "symOrdId": order.parent_number or "NA",
        "optTp": option_type_text(listing, "XX"),
        "updRecvTm": state.time_ns,
        "boeSec": state.time_ns // NS,
        "uSec": str(state.time_ns // 1_000_000),
    }


_TRADE_CONSTANTS: Final[Row] = {
    "actId": "",
    "algCat": "NA",
    "algId": "NA",
    "brkClnt": "NA",
    "cstFrm": "C",
    "exp": "-",
    "minQty": 0,
    "ordDur": "NA",
    "rmk": NONE,
    "rptTp": "fill",
    "locId": LOCATION,
    "ordSrc": "NA",
    "strategyCode": "",
    # Empty in the broker's own newer rows: readers have to go by trading symbol and fill.
    "tok": "",
    "posFlg": "",
    "prc": "",
    "qty": 0,
    "tm": "",
}


def trade_row(fill: Fill, order: OrderRecord) -> Row:
    """Return a row of the trade book: a fill."""
    listing = order.listing
    second = fill.time_ns // NS
    day, clock, sortable = second_texts(second)
    return {
        **_TRADE_CONSTANTS,
        **instrument_fields(listing),
        "avgPrc": rupees(fill.price),
        "boeSec": second,
        "brdLtQty": listing.lot_size,
        "exOrdId": order.exchange_number,
        "exTm": f"{day} {clock}",
        "fldQty": fill.quantity,
        "flDt": day,
        "flId": fill.trade_number,
        "flLeg": fill.leg,
        "flTm": clock,
        "nOrdNo": order.number,
        "nReqId": str(order.request_id),
        "optTp": option_type_text(listing, "- "),
        "ordGenTp": "AMO" if order.amo else NONE,
        "prcTp": order.order_type.value,
        "prod": order.product.value,
        "trnsTp": order.side.value,
        "usrId": order.account,
        "hsUpTm": sortable,
        "GuiOrdId": order.gui_order_id,
        "updRecvTm": fill.time_ns,
        "uSec": str(second),
        "it": kind_text(listing),
    }
