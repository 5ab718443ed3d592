"""Kite's rules for orders and SIPs, checked before anything is sent.

Each rule raises InvalidOrder with the field, its value and the rule. The rules that need the list
of funds (minimum, multiple, what is allowed) are in the functions that take a Fund.
"""

from __future__ import annotations

import re
import secrets
import string
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from neo_async.errors import InvalidOrder
from neo_async.kite.model import Frequency, Fund, SipStatus
from neo_async.model import money
from neo_async.model.enums import Side
from neo_async.model.isin import check_digit
from neo_async.model.orders import Price
from neo_async.model.spellings import member_of
from neo_async.wire.numbers import price_text

E = TypeVar("E", bound=StrEnum)

INSTALMENT_DAYS: Final = (1, 5, 10, 15, 20, 25)
_TAG_LENGTH: Final = 8
_MONEY_DECIMALS: Final = 2
_UNIT_DECIMALS: Final = 3
_LARGEST: Final = Decimal("1e13")
"""Bound of amounts and quantities."""

_ISIN: Final = re.compile(r"INF[0-9A-Z]{8}[0-9]", re.ASCII)
_TAG: Final = re.compile(rf"[A-Za-z0-9]{{1,{_TAG_LENGTH}}}", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_ALPHABET: Final = string.ascii_letters + string.digits


def new_tag() -> str:
    """Return a tag that no other order has: one of 62**8."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_TAG_LENGTH))


# --- forms ----------------------------------------------------------------------------------------


def order_form(
    tradingsymbol: str, side: Side | str, amount: Price | None, quantity: Price | None, tag: str
) -> dict[str, str]:
    """Check an order and return its form. Raises InvalidOrder."""
    form = {"tradingsymbol": _isin(tradingsymbol), "transaction_type": _side(side).name}
    if form["transaction_type"] == Side.BUY.name:
        if quantity is not None:
            raise InvalidOrder("quantity", quantity, "a BUY is for an amount of rupees")
        form["amount"] = _money("amount", amount)
    else:
        if amount is not None:
            raise InvalidOrder("amount", amount, "a SELL is for a quantity of units")
        form["quantity"] = _number("quantity", quantity, _UNIT_DECIMALS, "units")
    form["tag"] = _tag(tag)
    return form


def sip_form(
    tradingsymbol: str,
    amount: Price,
    frequency: Frequency | str,
    instalments: int,
    instalment_day: int | None,
    initial_amount: Price | None,
    tag: str,
) -> dict[str, str]:
    """Check a SIP and return its form. Raises InvalidOrder."""
    chosen = _frequency(frequency)
    form = {
        "tradingsymbol": _isin(tradingsymbol),
        "amount": _money("amount", amount),
        "frequency": chosen.value,
        "instalments": _instalments(instalments),
        "tag": _tag(tag),
    }
    if chosen is Frequency.MONTHLY:
        form["instalment_day"] = _instalment_day(instalment_day)
    elif instalment_day is not None:
        raise InvalidOrder("instalment_day", instalment_day, f"is for monthly SIPs, not {chosen}")
    if initial_amount is not None:
        form["initial_amount"] = _money("initial_amount", initial_amount)
    return form


def sip_change_form(
    amount: Price | None,
    frequency: Frequency | str | None,
    instalments: int | None,
    instalment_day: int | None,
    status: SipStatus | str | None,
) -> dict[str, str]:
    """Check changes of a SIP and return their form. Raises InvalidOrder."""
    form = {}
    if amount is not None:
        form["amount"] = _money("amount", amount)
    if frequency is not None:
        form["frequency"] = _frequency(frequency).value
    if instalments is not None:
        form["instalments"] = _instalments(instalments)
    if instalment_day is not None:
        if form.get("frequency") not in (None, Frequency.MONTHLY):
            raise InvalidOrder(
                "instalment_day", instalment_day, f"is for monthly SIPs, not {form['frequency']}"
            )
        form["instalment_day"] = _instalment_day(instalment_day)
    if status is not None:
        form["status"] = _status(status)
    if not form:
        raise InvalidOrder(
            "changes",
            None,
            "nothing to change: give amount, frequency, instalments, instalment_day or status",
        )
    return form


def check_id(field: str, number: str) -> str:
    """Return an id that is safe in the path of a call. Raises InvalidOrder."""
    if not (isinstance(number, str) and _ID.fullmatch(number)):
        raise InvalidOrder(field, number, "must be an id as Kite gives it: letters, digits, dashes")
    return number


# --- rules of the list of funds -------------------------------------------------------------------


def check_purchase(fund: Fund, amount: str) -> None:
    """Check a purchase for what Kite would always refuse. The minimum of a first purchase is not
    checked: only Kite has the data to see whether it is the first one in its fund."""
    minimum = min(fund.minimum_purchase_amount, fund.minimum_additional_purchase_amount)
    _check_amount(fund, "amount", amount, minimum)


def check_sip(fund: Fund, form: dict[str, str]) -> None:
    _check_amount(fund, "amount", form["amount"], fund.minimum_additional_purchase_amount)
    if "initial_amount" in form:
        _check_amount(fund, "initial_amount", form["initial_amount"], fund.minimum_purchase_amount)


def check_instalment(fund: Fund, amount: str) -> None:
    """Check the instalment of an existing SIP, whether or not a new one could begin."""
    _check_least(fund, "amount", amount, fund.minimum_additional_purchase_amount)


def is_below_redemption(fund: Fund, quantity: str) -> bool:
    """Return whether so few units can be sold only if they are the whole holding."""
    return Decimal(quantity) < money.exact(fund.minimum_redemption_quantity)


def check_redemption(fund: Fund, quantity: str, held: float | None) -> None:
    """Check a sale. `held` is needed where `is_below_redemption`; None when it is not known, and
    then the check is left to Kite."""
    _check_kind(fund)
    if not fund.redemption_allowed:
        raise InvalidOrder("tradingsymbol", fund.tradingsymbol, f"{fund.name} cannot be redeemed")
    minimum = fund.minimum_redemption_quantity
    if held is not None and is_below_redemption(fund, quantity):
        if Decimal(quantity) != money.rounded(money.exact(held), _UNIT_DECIMALS):
            raise InvalidOrder(
                "quantity",
                quantity,
                f"must be at least {minimum:.12g} units of {fund.name}, or all of the "
                f"{held:.3f} held",
            )
        return
    _check_multiple("quantity", quantity, fund.redemption_quantity_multiplier)


def _check_amount(fund: Fund, field: str, amount: str, minimum: float) -> None:
    _check_kind(fund)
    if not fund.purchase_allowed:
        raise InvalidOrder("tradingsymbol", fund.tradingsymbol, f"{fund.name} cannot be purchased")
    _check_least(fund, field, amount, minimum)


def _check_least(fund: Fund, field: str, amount: str, minimum: float) -> None:
    if Decimal(amount) < money.exact(minimum):
        raise InvalidOrder(field, amount, f"must be at least {minimum:.12g} for {fund.name}")
    _check_multiple(field, amount, fund.purchase_amount_multiplier)


def _check_multiple(field: str, text: str, multiple: float) -> None:
    if multiple and not money.is_multiple(Decimal(text), money.exact(multiple)):
        raise InvalidOrder(field, text, f"must be a multiple of {multiple:.12g}")


def _check_kind(fund: Fund) -> None:
    if "reinvest" in fund.dividend_type.lower():
        raise InvalidOrder(
            "tradingsymbol",
            fund.tradingsymbol,
            f"{fund.name} reinvests dividends, which Kite's API does not support: take the growth "
            "or payout option",
        )


# --- fields ---------------------------------------------------------------------------------------


def _isin(text: str) -> str:
    if not (isinstance(text, str) and _ISIN.fullmatch(text)):
        raise InvalidOrder(
            "tradingsymbol", text, "must be a fund's ISIN: INF, eight capitals or digits, a digit"
        )
    digit = check_digit(text[:-1])
    if text[-1] != digit:
        raise InvalidOrder(
            "tradingsymbol", text, f"is misspelt: behind {text[:-1]} the check digit is {digit}"
        )
    return text


def _side(side: Side | str) -> Side:
    if isinstance(side, Side) and side.is_known:
        return side
    if side not in Side.__members__:
        raise InvalidOrder("side", side, "must be Side.BUY or Side.SELL")
    return Side[side]


def _money(field: str, value: Price | None) -> str:
    return _number(field, value, _MONEY_DECIMALS, "rupees")


def _number(field: str, value: Price | None, decimals: int, unit: str) -> str:
    if value is None:
        raise InvalidOrder(field, value, f"must be a number of {unit}")
    text = price_text(field, value)
    if text == "0":
        raise InvalidOrder(field, value, "must be above 0")
    if len(text.partition(".")[2].rstrip("0")) > decimals:
        raise InvalidOrder(field, value, f"must have at most {decimals} decimals")
    if Decimal(text) >= _LARGEST:
        raise InvalidOrder(field, value, "must be below 10 million million")
    return text


def _tag(tag: str) -> str:
    if not (isinstance(tag, str) and _TAG.fullmatch(tag)):
        raise InvalidOrder(
            "tag", tag, f"must be 1 to {_TAG_LENGTH} letters and digits, nothing else"
        )
    return tag


def _frequency(frequency: Frequency | str) -> Frequency:
    return _member("frequency", frequency, Frequency)


def _status(status: SipStatus | str) -> str:
    """Return a status in small letters, as Kite expects it; it reports capitals."""
    if str(status).upper() not in (SipStatus.ACTIVE, SipStatus.PAUSED):
        raise InvalidOrder("status", status, "must be active or paused; cancel_sip() ends a SIP")
    return str(status).lower()


def _instalments(instalments: int) -> str:
    if type(instalments) is not int or not (instalments == -1 or instalments > 0):
        raise InvalidOrder("instalments", instalments, "must be above 0, or -1 until cancelled")
    return str(instalments)


def _instalment_day(day: int | None) -> str:
    if type(day) is not int or day not in INSTALMENT_DAYS:
        days = ", ".join(map(str, INSTALMENT_DAYS))
        raise InvalidOrder("instalment_day", day, f"a monthly SIP needs one of {days}")
    return str(day)


def _member(field: str, value: E | str, vocabulary: type[E]) -> E:
    try:
        return member_of(vocabulary, value)
    except ValueError as error:
        raise InvalidOrder(field, value, str(error)) from None
