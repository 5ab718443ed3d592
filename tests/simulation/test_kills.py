"""A bot killed with SIGKILL at any moment, also while it resolves open requests."""

from __future__ import annotations

import sys

import pytest

from tests.simulation.kills import kill_repeatedly


@pytest.mark.real_time("kills real processes")
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
async def test_a_bot_killed_at_any_moment_leaves_no_orphan_and_no_double() -> None:
    result = await kill_repeatedly(4, seed=12)
    assert result.problems == []
    assert (result.orphans, result.doubles) == (0, 0)
    assert result.accepted > 0
    assert result.resolved > 0
    assert result.starting > 0
