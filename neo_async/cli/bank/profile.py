"""The command that prints a profile: every key with its default, as TOML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import typer

from neo_async.banking import BankingProfile

_NESTED = ("request", "response", "status_words", "constants")


def profile() -> None:
    """Print every key of a profile with its default, as a template for your bank.

    neo-async bank profile > bank.toml
    """
    sections: Mapping[str, Any] = msgspec.to_builtins(BankingProfile())
    for name, content in sections.items():
        if name in _NESTED:
            for part, keys in content.items():
                typer.echo("\n".join(_section(f"{name}.{part}", keys)))
        else:
            typer.echo("\n".join(_section(name, content)))


def _section(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{name}]"
    for key, value in content.items():
        yield f"{_key(key)} = {_value(value)}"
    yield ""


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else _value(key)


def _value(value: object) -> str:
    """Return a value in TOML: texts, numbers, flags and lists of them look as in JSON."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return msgspec.json.encode(value).decode()
