import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ace_ray.replay.sum_tree import SumTree

pytestmark = pytest.mark.unit


@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=70), u=st.floats(0, 1, exclude_max=True))
def test_find_is_the_inverse_of_the_cumulative_sum(values, u):
    tree = SumTree(len(values))
    tree.set(np.arange(len(values)), np.array(values))
    assert tree.total == pytest.approx(sum(values))
    if tree.total == 0:
        with pytest.raises(ValueError):
            tree.find(np.array([0.0]))
        return
    leaf = int(tree.find(np.array([u * tree.total]))[0])
    assert values[leaf] > 0
    before = sum(values[:leaf])
    assert before - 1e-6 <= u * tree.total <= before + values[leaf] + 1e-6


def test_draws_are_in_proportion_to_the_values_after_many_updates():
    rng = np.random.default_rng(0)
    tree = SumTree(200)
    for _ in range(500):
        tree.set(rng.integers(0, 200, 20), rng.random(20))
    values = np.zeros(200)
    values[[3, 64, 199]] = 1.0, 2.0, 5.0
    tree.set(np.arange(200), values)
    counts = np.bincount(tree.sample(80_000, rng), minlength=200)
    assert set(np.flatnonzero(counts)) == {3, 64, 199}
    np.testing.assert_allclose(counts[[3, 64, 199]] / 80_000, [1 / 8, 2 / 8, 5 / 8], atol=0.01)


def test_what_is_no_leaf_or_no_priority_is_refused():
    tree = SumTree(4)
    with pytest.raises(IndexError):
        tree.set(np.array([4]), np.array([1.0]))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError):
            tree.set(np.array([0]), np.array([bad]))
