"""Kite's forms, read into requests to the fund simulator; unreadable ones are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from neo_async.exchange.funds.types import (
    Frequency,
    FundRefusal,
    NewOrder,
    NewSip,
    Side,
    SipChange,
    SipState,
)

E = TypeVar("E", bound=StrEnum)

_NUMBER: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9]{1,8}", re.ASCII)
_STATES: Final = {"active": SipState.ACTIVE, "paused": SipState.PAUSED}

Form = Mapping[str, str]


def read_form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def read_order(form: Form) -> NewOrder:
    side = _member(Side, "transaction_type", need(form, "transaction_type"))
    isin = need(form, "tradingsymbol")
    tag = _tag(form)
    if side is Side.BUY:
        _forbid(form, "quantity", side)
        return NewOrder(isin=isin, side=side, amount=_above_zero(form, "amount", 2), tag=tag)
    _forbid(form, "amount", side)
    return NewOrder(isin=isin, side=side, units=_above_zero(form, "quantity", 3), tag=tag)


def read_sip(form: Form) -> NewSip:
    return NewSip(
        isin=need(form, "tradingsymbol"),
        amount=_above_zero(form, "amount", 2),
        initial_amount=_above_zero(form, "initial_amount", 2) if "initial_amount" in form else 0,
        frequency=_member(Frequency, "frequency", need(form, "frequency")),
        instalment_day=_integer(form, "instalment_day") or 0,
        instalments=_integer(form, "instalments", is_needed=True) or 0,
        tag=_tag(form),
    )


def read_change(form: Form) -> SipChange:
    state = form.get("status")
    if state is not None and state not in _STATES:
        raise _invalid("status", f"one of {', '.join(_STATES)}")
    return SipChange(
        amount=_above_zero(form, "amount", 2) if "amount" in form else None,
        frequency=(
            _member(Frequency, "frequency", form["frequency"]) if "frequency" in form else None
        ),
        instalment_day=_integer(form, "instalment_day"),
        instalments=_integer(form, "instalments"),
        state=_STATES[state] if state is not None else None,
    )


def need(form: Form, name: str) -> str:
    """Return a required field. Raises FundRefusal."""
    value = form.get(name)
    if not value:
        raise FundRefusal(f"Missing `{name}`.")
    return value


def _above_zero(form: Form, name: str, decimals: int) -> int:
    """Return a decimal number above zero, in units of its last allowed decimal."""
    match = _NUMBER.fullmatch(need(form, name))
    if match is None:
        raise _invalid(name, "a number")
    whole, fraction = match.group(1), (match.group(2) or "").rstrip("0")
    if len(fraction) > decimals:
        raise _invalid(name, f"a number with {decimals} decimals at most")
    number = int(whole + fraction.ljust(decimals, "0"))
    if not number:
        raise _invalid(name, "above 0")
    return number


def _integer(form: Form, name: str, *, is_needed: bool = False) -> int | None:
    text = need(form, name) if is_needed else form.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,6}", text, re.ASCII):
        raise _invalid(name, "a whole number")
    return int(text)


def _tag(form: Form) -> str | None:
    tag = form.get("tag")
    if tag is not None and not _TAG.fullmatch(tag):
        raise _invalid("tag", "alphanumeric, of 8 characters at most")
    return tag


def _forbid(form: Form, name: str, side: Side) -> None:
    if name in form:
        raise FundRefusal(f"`{name}` is not applicable on a {side}.")


def _member(kind: type[E], name: str, text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise _invalid(name, f"one of {', '.join(kind)}") from None


def _invalid(name: str, rule: str) -> FundRefusal:
    return FundRefusal(f"Invalid `{name}`: has to be {rule}.")
