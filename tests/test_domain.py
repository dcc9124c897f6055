import pytest

from ace_ray.domain import Outcome, best, pivotal, salvageable, verdict

pytestmark = pytest.mark.unit


def lived(ret: float) -> Outcome:
    return Outcome(True, 100, ret, ret)


def died(steps: int) -> Outcome:
    """A death after `steps` steps of 0.08 each, where the horizon would have held 8."""
    return Outcome(False, steps, 0.08 * (steps - 1) - 1.0, 8.0)


def test_survival_comes_before_return():
    assert verdict(lived(1.0), Outcome(False, 99, 50.0, 50.0), 0.01) == "better"
    assert verdict(died(99), lived(0.1), 0.01) == "worse"


@pytest.mark.parametrize(("ret", "said"), [(8.07, "tie"), (7.93, "tie"), (8.1, "better"), (7.9, "worse")])
def test_a_difference_under_one_percent_of_the_horizon_is_a_tie(ret, said):
    assert verdict(lived(ret), lived(8.0), 0.01) == said


def test_among_deaths_the_later_one_is_better():
    assert verdict(died(10), Outcome(False, 10, -0.27, 8.0), 0.01) == "tie"
    assert verdict(died(40), died(10), 0.01) == "better"
    assert verdict(died(10), died(40), 0.01) == "worse"


def test_without_a_span_the_larger_return_is_the_measure():
    assert verdict(Outcome(True, 100, 8.05), Outcome(True, 100, 8.0), 0.01) == "tie"
    assert verdict(Outcome(True, 100, 8.05), Outcome(True, 100, 8.0), 0.001) == "better"


def test_verdict_is_antisymmetric():
    mirror = {"better": "worse", "worse": "better", "tie": "tie"}
    outcomes = [lived(8.0), lived(8.5), died(3), died(50), Outcome(False, 1, -1.0)]
    for a in outcomes:
        for b in outcomes:
            assert verdict(b, a, 0.01) == mirror[verdict(a, b, 0.01)]


def test_salvageable_means_the_played_one_dies_and_another_lives():
    assert salvageable({0: died(5), 7: lived(8.0)}, played=0)
    assert not salvageable({0: died(5), 7: died(50)}, played=0)
    assert not salvageable({0: lived(1.0), 7: lived(8.0)}, played=0)


def test_pivotal_means_that_some_survive_and_others_do_not():
    assert pivotal({0: died(5), 7: lived(8.0)})
    assert not pivotal({0: died(5), 7: died(90)})
    assert not pivotal({0: lived(1.0), 7: lived(8.0)})


def test_best_prefers_survival_then_return_then_the_smaller_id():
    assert best({3: died(99), 5: lived(1.0), 9: lived(1.0), 2: lived(0.5)}) == 5


def test_outcome_reads_back_from_json_numbers():
    for outcome in (lived(8.0), died(3)):
        assert Outcome.from_json(outcome.to_json()) == outcome
