"""A bot killed with SIGKILL at any moment, also while it finds out what the one before has left."""

from __future__ import annotations

import sys

import pytest

from tests.simulation.kills import kill_again_and_again


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
async def test_killed_at_any_moment_on_a_bad_day_it_leaves_no_orphan_and_no_double() -> None:
    result = await kill_again_and_again(4, seed=12)
    assert result.problems == []
    assert (result.orphans, result.doubles) == (0, 0)
    assert result.accepted > 0
    assert result.found > 0
    assert result.starting > 0
