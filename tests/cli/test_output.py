"""Tables in terminals of any width."""

from __future__ import annotations

import msgspec
import pytest

from neo_async.cli import account, output
from neo_async.cli.output import print_table
from neo_async.cli.table_layout import Column
from neo_async.model.orders import OrderRow
from neo_async.model.portfolio import PositionRow
from neo_async.portfolio.valuation import value_position
from tests.cli.conftest import set_terminal

COLUMNS = (
    Column("Order", is_whole=True),
    Column("Time", is_whole=True, rank=1),
    Column("Symbol"),
    Column("Price", is_number=True),
    Column("Trigger", is_number=True, is_optional=True),
)
NUMBER = "261121000000001"


def table(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
    *rows: tuple[str, ...],
) -> str:
    set_terminal(monkeypatch, width)
    print_table(COLUMNS, rows)
    return capsys.readouterr().out


def test_a_column_without_anything_in_it_is_left_out(monkeypatch, capsys):
    with_one = table(
        monkeypatch,
        capsys,
        80,
        (NUMBER, "10:00:00", "A", "1.00", "-"),
        (NUMBER, "", "B", "", "2.00"),
    )
    assert "Trigger" in with_one
    assert "Trigger" not in table(monkeypatch, capsys, 80, (NUMBER, "10:00:00", "A", "1.00", "-"))


def test_columns_are_left_out_by_rank_then_cells_break_between_words_and_words_never(
    monkeypatch, capsys
):
    row = (NUMBER, "10:00:00", "NIFTY FUTURE", "24,485.20", "-")
    wide, spared, broken, narrow = (
        table(monkeypatch, capsys, width, row) for width in (60, 45, 36, 20)
    )
    assert f"{NUMBER}  10:00:00  NIFTY FUTURE  24,485.20" in wide
    assert f"{NUMBER}  NIFTY FUTURE  24,485.20" in spared
    assert [line.strip() for line in broken.splitlines()[2:]] == [
        f"{NUMBER}  NIFTY     24,485.20",
        "FUTURE",
    ]
    assert [line.rstrip() for line in narrow.splitlines()] == [
        f"Order   {NUMBER}",
        "Time    10:00:00",
        "Symbol  NIFTY FUTURE",
        "Price   24,485.20",
    ]


def test_columns_that_are_left_out_are_named(monkeypatch, capsys):
    set_terminal(monkeypatch, 45)
    print_table(COLUMNS, [(NUMBER, "10:00:00", "NIFTY FUTURE", "24,485.20", "-")])
    assert capsys.readouterr().err == "not shown at 45 columns: Time\n"


def test_without_a_terminal_a_row_is_one_line_of_any_length(capsys):
    print_table(COLUMNS, [(NUMBER, "10:00:00", "NIFTY FUTURE " * 40, "24,485.20", "-")])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert printed.out.endswith("24,485.20\n")
    assert not printed.err


ODD = OrderRow(
    number="7",
    symbol="ITBEES-EQ",
    quantity=10,
    price=39.35,
    status_text="open",
    missing=frozenset({"filled_quantity", "average_price"}),
    odd=("avgPrc='1,039.35' is not a number",),
)


def test_what_a_row_lacks_is_unknown_in_a_table_and_never_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_terminal(monkeypatch, 200)
    account.print_orders([ODD])
    shown = capsys.readouterr().out
    assert "unknown/10" in shown
    assert "39.35" in shown
    assert "7: avgPrc='1,039.35' is not a number" in shown


def test_what_a_row_lacks_is_null_in_json() -> None:
    fields = account.order_fields(ODD)
    assert (fields["filled_quantity"], fields["average_price"]) == (None, None)
    assert (fields["quantity"], fields["price"]) == (10, 39.35)
    assert fields["odd"] == ["avgPrc='1,039.35' is not a number"]
    assert not fields.keys() & {"missing"}


def test_amounts_in_json_are_free_of_binary_residue() -> None:
    row = PositionRow(
        segment="nse_fo", symbol="X", token="1", buy_quantity=3, buy_value=0.3, sell_value=0.0
    )
    position = value_position(row, None, 0.2)
    assert position.pnl != 0.3
    assert output.plain(position)["pnl"] == 0.3


def test_json_has_words_for_sides_null_for_no_text_and_rounded_numbers() -> None:
    class Row(msgspec.Struct):
        side: str
        text: str
        price: float
        levels: tuple[float, ...] = ()

    row = Row("S", "--", 1.099999999999966, (0.1 + 0.2,))
    expected = {"side": "sell", "text": None, "price": 1.1, "levels": [0.3]}
    assert output.plain(row) == output.plain(msgspec.structs.asdict(row)) == expected
    assert output.plain([{"rows": [row]}]) == [{"rows": [expected]}]


@pytest.mark.parametrize("amount", [-0.0, -0.001, -1e-14])
def test_no_amount_is_shown_as_minus_nothing(amount: float) -> None:
    assert output.money(amount) == "0.00"
    assert output.profit(amount).text == "0.00"
