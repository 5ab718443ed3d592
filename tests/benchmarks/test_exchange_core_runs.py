"""The benchmark of the matching core, at tiny size."""

from __future__ import annotations

import pytest

from benchmarks import exchange_core


@pytest.mark.parametrize("scene", ["mix", "resting", "journaled"])
def test_a_scene_takes_all_its_orders(scene: str) -> None:
    assert exchange_core.measure(scene, 300) > 0


def test_every_scene_has_its_figure() -> None:
    figures = exchange_core.run(100, rounds=2)
    assert {name: figure.rounds for name, figure in figures.items()} == {
        "mix": 2,
        "resting": 2,
        "journaled": 2,
    }
