"""Files of environment variables, as `.env` files are: one `NAME=value` a line.

A parser of our own rather than python-dotenv: the forms that shells and the usual tools agree on
are few, and values that would need a shell (`$NAME`, `$(…)`) are refused instead of being
interpreted, because a password may hold a dollar sign.
"""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_BARE: Final = re.compile(r"([^\s'\"\\`$]*)(?:\s+#.*)?")
_SINGLE: Final = re.compile(r"'([^']*)'\s*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"([^"\\`$]*)"\s*(?:#.*)?')


def read_env_file(text: str) -> dict[str, str]:
    """Return the variables of a file; the last line counts for a name that is there twice.

    Raises ValueError that names the line, without its value: it may be a secret.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        matched = _LINE.fullmatch(line)
        if matched is None:
            raise ValueError(f"line {number}: must be NAME=value")
        name, rest = matched.groups()
        for form in (_BARE, _SINGLE, _DOUBLE):
            value = form.fullmatch(rest)
            if value is not None:
                found[name] = value[1]
                break
        else:
            raise ValueError(
                f"line {number}: the value of {name} must be one word, or in single quotes"
            )
    return found
