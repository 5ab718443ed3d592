"""Untrusted text in a form that is safe in a terminal, a log line or an error message."""

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
    r"""Return the text on one line, with control characters escaped: `\n`, `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return _ACTS.sub(lambda found: repr(found[0])[1:-1], text)


def shown_json(text: str) -> str:
    """Return the JSON with the same characters escaped; its meaning does not change."""
    return text if text.isprintable() else _ACTS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
