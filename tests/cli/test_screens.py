"""Every table of every command in terminals of any width: no word is broken, no heading is cut.

The values are long ones: symbols of weekly options, prices of six digits, quantities of seven.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from neo_async.banking import AccountResult, Credit, Outcome, Refund, RefundStatus
from neo_async.cli import account, instruments, market, trade
from neo_async.cli.bank import accounts, refunds, transactions
from neo_async.cli.kite import reports
from neo_async.kite import Fund, FundHolding, FundOrder, Sip
from neo_async.model.instruments import Instrument
from neo_async.model.market import (
    Candles,
    ChainRow,
    FutureQuote,
    FuturesChain,
    Interval,
    OptionChain,
    OptionQuote,
    Quote,
    Quotes,
)
from neo_async.model.orders import OrderRow, Trade
from neo_async.model.portfolio import Holding, Limits, OrderMargin, PositionRow
from neo_async.model.ticks import DepthRow
from neo_async.portfolio.valuation import value_position
from tests.cli.conftest import set_terminal

CALL = "MIDCPNIFTY26DEC12000CE"
WEEKLY = "SENSEX26D0184500PE"
REJECTED = (
    "RMS:Rule: Check circuit limit including square off order exceeds : Circuit breach, Order "
    "Price :845000.05, Low Price Range:120000.55 Upper Price Range:145000.95"
)
FUND = "Kotak Nifty Alpha 50 Equal Weight Index Fund - Direct Plan - Growth Option"
WIDTHS = (60, 80, 120, 200)


def order(symbol: str, **changes: Any) -> OrderRow:
    fields: dict[str, Any] = {
        "number": "261130000000001",
        "symbol": symbol,
        "segment": "bse_fo",
        "side": "S",
        "quantity": 1_755_000,
        "filled_quantity": 1_755_000,
        "price": 145_000.95,
        "trigger": 144_900.05,
        "average_price": 145_000.95,
        "order_type": "SL-M",
        "product": "NRML",
        "validity": "DAY",
        "status_text": "cancelled after market order",
        "time_text": "30-Nov-2026 14:28:01",
    }
    return OrderRow(**fields | changes)


def position(symbol: str) -> Any:
    row = PositionRow(
        segment="bse_fo",
        symbol=symbol,
        token="842110",
        product="NRML",
        buy_quantity=1_755_000,
        buy_value=254_476_667_250.0,
    )
    return value_position(row, 144_000.05, 143_000.0)


def filled(kind: type[msgspec.Struct], /, **fields: Any) -> Any:
    """Return a struct with these fields, and with the longest usual values in the others."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        text = str(field.type)
        if field.name in fields or field.name in ("missing", "odd"):
            continue
        if "float" in text:
            values[field.name] = 145_000.95
        elif "int" in text:
            values[field.name] = 1_755_000
        elif "str" in text and field.required:
            values[field.name] = "text"
    return kind(**values | fields)


QUOTE = filled(
    Quote,
    instrument="bse_fo|842110",
    symbol=WEEKLY,
    last_update_time=1_782_374_657,
    bids=(DepthRow(1_755_000, 145_000.95, 12_345),) * 5,
    asks=(DepthRow(1_755_000, 145_001.05, 12_345),) * 5,
)
OPTION = filled(OptionQuote, instrument="bse_fo|842110", symbol=WEEKLY, previous_close=101_000.05)
DAY = date(2026, 12, 1)


def print_quotes() -> None:
    market._print_quotes(Quotes({QUOTE.instrument: QUOTE}, {"nse_cm|999999": "no such instrument"}))


TABLES: dict[str, Callable[[], None]] = {
    "orders": lambda: account.print_orders(
        [order(CALL), order(WEEKLY, status_text="rejected", reject_text=REJECTED)]
    ),
    "trades": lambda: account._print_trades(
        [
            filled(
                Trade,
                order_number="261130000000001",
                trade_number="1234567890",
                symbol=CALL,
                side="B",
                product="NRML",
                time_text="30-Nov-2026 14:28:01",
            )
        ]
    ),
    "positions": lambda: account._print_positions([position(CALL), position(WEEKLY)]),
    "holdings": lambda: account._print_holdings([filled(Holding, symbol="MIDCPNIFTYBEES-EQ")]),
    "limits": lambda: account._print_limits(filled(Limits)),
    "margin": lambda: trade._print_margin(filled(OrderMargin, sufficient=False)),
    "quote": print_quotes,
    "quote --filter depth": lambda: market._print_depth(Quotes({"bse_fo|842110": QUOTE}, {})),
    "chain": lambda: market._print_options(
        OptionChain(
            segment="bse_fo",
            underlying="SENSEX",
            expiry=DAY,
            lot_size=20,
            rows=[filled(ChainRow, strike=84_500.0, call=OPTION, put=OPTION)],
        )
    ),
    "chain --futures": lambda: market._print_futures(
        FuturesChain(
            segment="nse_fo",
            underlying="MIDCPNIFTY",
            lot_size=140,
            rows=[filled(FutureQuote, symbol="MIDCPNIFTY26DECFUT", expiry=DAY)],
        )
    ),
    "candles": lambda: market._print_candles(
        Candles(
            instrument="nse_cm|1333",
            interval=Interval.MINUTES_5,
            time=[datetime(2026, 11, 30, 9, 15, tzinfo=UTC)],
            open=[145_000.95],
            high=[145_000.95],
            low=[145_000.95],
            close=[145_000.95],
            volume=[1_755_000_000],
            open_interest=[1_755_000],
        )
    ),
    "instruments of contracts": lambda: instruments._print(
        [
            filled(
                Instrument,
                segment="bse_fo",
                token="842110",
                symbol=CALL,
                name="MIDCPNIFTY",
                kind="OPTIDX",
                expiry=DAY,
                strike=12_000.0,
                option_type="CE",
                precision=2,
            )
        ]
    ),
    "instruments of shares": lambda: instruments._print(
        [
            filled(
                Instrument,
                segment="nse_cm",
                token="842110",
                symbol="MIDCPNIFTYBEES-EQ",
                name="MIDCPNIFTYBEES",
                expiry=None,
                strike=None,
                series="EQ",
                isin="INF204KB14I2",
                description="NIPPON INDIA ETF NIFTY MIDCAP 150",
                precision=2,
            )
        ]
    ),
    "kite orders": lambda: reports.print_orders(
        [
            filled(
                FundOrder,
                order_id="271989e0-a64e-4cf3-b4e4-afb8f38dd203",
                fund=FUND,
                transaction_type="BUY",
                tag="abcd1234",
                status="REJECTED",
                status_message="Amount is below the minimum purchase amount of the scheme",
            )
        ]
    ),
    "kite sips": lambda: reports.print_sips(
        [
            filled(
                Sip,
                sip_id="846479755969168",
                fund=FUND,
                frequency="monthly",
                status="ACTIVE",
                tag="abcd1234",
                step_up={"15-02-2027": 10.0},
            )
        ]
    ),
    "kite holdings": lambda: reports._print_holdings(
        [filled(FundHolding, fund=FUND, tradingsymbol="INF174K01LS2", folio="3108290884/12")]
    ),
    "kite instruments": lambda: reports._print_funds(
        [
            filled(
                Fund,
                tradingsymbol="INF174K01LS2",
                name=FUND,
                plan="direct",
                dividend_type="payout",
                scheme_type="equity",
                purchase_allowed=False,
                redemption_allowed=True,
            )
        ]
    ),
    "bank create": lambda: accounts._print(
        [
            AccountResult("ACME00000001", Outcome.REFUSED, code="VA-1042", reason=REJECTED),
            AccountResult("ACME00000002", Outcome.DONE),
        ]
    ),
    "bank transactions": lambda: transactions._show_table(
        [
            filled(
                Credit,
                account="ACMEPAYMENTS0000000001",
                amount=Decimal("1234567.05"),
                mode="IMPS",
                remitter_name="Venkatanarasimharajuvaripeta Rao",
                remitter_account="00112233445566",
                reference="AXISN52026111900012345",
                narration="INVOICE 2026/11/30 SETTLEMENT",
                credited_at=datetime(2026, 11, 30, 9, 15, tzinfo=UTC),
            )
        ]
    ),
    "bank refund": lambda: refunds._print(
        filled(
            Refund,
            reference="AXISN52026111900012345",
            refund_reference="RFND2026113000000001",
            amount=Decimal("1234567.05"),
            status=RefundStatus.SUCCESS,
            status_text="SUCCESS",
            message=REJECTED,
            updated_at=None,
            idempotency_key="6f1d2a53-7f5e-5d0b-9a77-0b6c1e0f4d11",
        )
    ),
}


def printed(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    set_terminal(monkeypatch, width)
    TABLES[name]()
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_breaks_no_word_and_cuts_no_heading(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = {word for line in printed(name, 10_000, monkeypatch, capsys) for word in line.split()}
    lines = printed(name, width, monkeypatch, capsys)
    assert {word for line in lines for word in line.split() if set(word) != {"─"}} <= full
    # Notes below a table are sentences, which the terminal itself may break.
    table = [line for line in lines if ": " not in line]
    assert max(map(cell_len, table)) <= width


@pytest.mark.parametrize("name", TABLES)
def test_a_wider_terminal_shows_more_and_never_less(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        {word for line in printed(name, width, monkeypatch, capsys) for word in line.split()}
        for width in (80, 120, 200, 400)
    ]
    for narrow, wide in itertools.pairwise(words):
        assert {word for word in narrow if set(word) != {"─"}} <= wide


@pytest.mark.parametrize("name", ["orders", "trades", "positions", "holdings", "quote"])
def test_a_report_is_a_table_at_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a record for each row, which is for terminals narrower than the essential columns."""
    assert any("──" in line for line in printed(name, 80, monkeypatch, capsys))
