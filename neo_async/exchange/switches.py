"""Every setting of market, broker, feeds and bank by its name, to be read from text and changed
while the exchange is open."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from typing import Any, Final, get_type_hints

import msgspec

from neo_async.errors import UsageError
from neo_async.exchange.bank.settings import BankSettings
from neo_async.exchange.engine.types import Rules
from neo_async.exchange.feeds.settings import FeedSettings
from neo_async.exchange.rest.settings import BrokerSettings
from neo_async.exchange.settings import Behaviour
from neo_async.wire.lenient import UNREADABLE

_GROUPS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "rules": Rules,
    "broker": BrokerSettings,
    "feeds": FeedSettings,
    "bank": BankSettings,
}
"""Groups of settings, by their name in `Behaviour`."""

_ONLY_AT_OPENING: Final = frozenset({"hours", *BankSettings.__struct_fields__})


class Switches:
    """The settings of an open exchange."""

    def __init__(self, behaviour: Behaviour, apply: Callable[[Behaviour], None]) -> None:
        """`apply` makes the exchange follow a changed behaviour."""
        self.behaviour = behaviour
        self._apply = apply

    def set(self, values: Mapping[str, object]) -> None:
        """Change settings by name, all or none.

        Raises UsageError for an unknown name, an invalid value, and a setting that an exchange can
        only be opened with.
        """
        for name in values:
            if name in _ONLY_AT_OPENING:
                raise UsageError(f"{name}: can only be set when the exchange is opened")
        self.behaviour = with_switches(self.behaviour, values)
        self._apply(self.behaviour)

    def reapply(self) -> None:
        """Make a new market follow the settings."""
        self._apply(self.behaviour)

    def report(self) -> dict[str, object]:
        """Return every setting and its value, by name."""
        return {
            name: value
            for group in _GROUPS
            for name, value in msgspec.to_builtins(getattr(self.behaviour, group)).items()
        }


def with_switches(behaviour: Behaviour, values: Mapping[str, object]) -> Behaviour:
    """Return the behaviour with settings changed by name; values may be text.

    Raises UsageError for an unknown name and an invalid value.
    """
    groups: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        group, type_ = _switch(name)
        groups.setdefault(group, {})[name] = _converted(name, value, type_)
    changed = {
        group: msgspec.structs.replace(getattr(behaviour, group), **fields)
        for group, fields in groups.items()
    }
    return msgspec.structs.replace(behaviour, **changed)


def read_switches(texts: Iterable[str]) -> dict[str, str]:
    """Read `name=value` texts. Raises UsageError for one without `=`."""
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"setting {text!r}: must be name=value; the names are {_names()}")
        values[name.strip()] = value.strip()
    return values


def _switch(name: str) -> tuple[str, Any]:
    """Return the group and the type of a setting."""
    found = _types().get(name)
    if found is None:
        close = difflib.get_close_matches(name, _types(), n=1)
        hint = f"the nearest is {close[0]}" if close else f"there are {_names()}"
        raise UsageError(f"setting {name!r}: is unknown; {hint}")
    return found


@cache
def _types() -> dict[str, tuple[str, Any]]:
    """Return group and type of every setting, by name; no two groups share a name."""
    return {
        name: (group, type_)
        for group, struct in _GROUPS.items()
        for name, type_ in get_type_hints(struct).items()
        if name in struct.__struct_fields__
    }


def _names() -> str:
    return ", ".join(_types())


def _converted(name: str, value: object, type_: Any) -> object:
    """Return a value of the type, read from text where it is one."""
    readings = [value]
    if isinstance(value, str):
        try:
            readings.append(msgspec.json.decode(value))
        except UNREADABLE:
            readings.append([part.strip() for part in value.split(",")])
    problem = ""
    for reading in readings:
        try:
            return msgspec.convert(reading, type_, strict=False)
        except msgspec.ValidationError as error:
            problem = problem or str(error)
    if isinstance(type_, type) and issubclass(type_, Enum):
        problem = f"must be one of {', '.join(str(member.value) for member in type_)}"
    raise UsageError(f"{name}={value!r}: {problem[0].lower()}{problem[1:]}")
