"""Words of others, in a form that a terminal, a log or a message can bear."""

from __future__ import annotations

import re
from typing import Final

_ACTS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, C0 and C1: line ends, escape sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the direction of what follows
    "\u2028\u2029"  # line and paragraph separators
    "\ufeff\ud800-\udfff]"  # byte order marks, and halves of a character
)


def shown(text: str) -> str:
    r"""The text on one line, with every character that would act instead of being seen written out,
    as `\n`, `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return _ACTS.sub(lambda found: repr(found[0])[1:-1], text)


def shown_json(text: str) -> str:
    """JSON in which the same characters are escaped: it means the same."""
    return text if text.isprintable() else _ACTS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
