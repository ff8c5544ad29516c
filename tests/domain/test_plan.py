"""What a plan says of itself."""

from __future__ import annotations

import pytest

from elias.domain.plan import percent


@pytest.mark.parametrize(
    ("chance", "told"),
    [(0.929, "92%"), (0.9254, "92%"), (0.999, "99%"), (1.0, "100%"), (0.29, "29%"), (0.57, "57%"), (0.0, "0%")],
)
def test_a_chance_is_rounded_down_and_a_whole_hundredth_stays(chance: float, told: str):
    assert percent(chance) == told
