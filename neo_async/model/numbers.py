"""Numbers: as reports carry them, and the context in which decimals are worked out.

The decoder refuses what is no `Number` or `Whole` (`NaN`, `inf`, a thousand digits), so that no
arithmetic on a report's row can bring forth a NaN or overflow.
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
"""For all arithmetic with decimals: exact with every amount and price there is, whatever precision,
rounding and traps the program around this package has set for its own. Operators (`*`, `%`, `-x`,
`round`, `sum`) use the program's; comparing, and making a decimal of a text, use none."""

Number: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
