"""Types of the numbers in reports, and the context for decimal arithmetic.

The decoder refuses a value that is not a `Number` or `Whole` (`NaN`, `inf`, a thousand digits), so
that arithmetic on a report's row never gives NaN or overflows.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, DivisionByZero, InvalidOperation, Overflow
from typing import Annotated, Final, TypeAlias

import msgspec

EXACT: Final = Context(
    prec=1000,
    rounding=ROUND_HALF_EVEN,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[InvalidOperation, DivisionByZero, Overflow],
)
"""Context for all decimal arithmetic: exact for every amount and price, whatever precision,
rounding and traps the program has set. Operators (`*`, `%`, `-x`, `round`, `sum`) use the program's
context; comparison, and conversion from text, use none."""

Number: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
