"""Numbers as reports carry them: finite, and no larger than a machine's own.

The decoder refuses what is neither (`NaN`, `inf`, a thousand digits), so that no arithmetic on a
report's row can bring forth a NaN or overflow.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

Number: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
