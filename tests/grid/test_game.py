import numpy as np
import pytest

from ace_ray.grid.game import GameRules

pytestmark = pytest.mark.unit


def test_a_line_is_tripped_after_the_steps_that_are_tolerated_or_at_once_when_far_above_its_limit():
    game = GameRules(substation_rest=3, line_rest=3, tripped_rest=12, tolerated=2, hard_rho=2.0)
    overflow = np.array([0, 1, 2, 2, 3, 0])
    rho = np.array([[1.5, 1.5, 1.5, 0.99, 1.01, 2.0], [0.5, 0.5, 0.5, 0.5, 0.5, 1.99]])
    assert game.tripped(overflow, rho).tolist() == [[False, False, True, False, True, True], [False] * 6]
