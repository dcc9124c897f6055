import logging

import pytest

from ace_ray.coevolution.unplayable import LIMIT, Unplayable
from ace_ray.config.errors import DataError

pytestmark = pytest.mark.unit


def test_a_bad_chronic_is_told_once_and_counted_while_the_others_are_played(caplog):
    found = Unplayable()
    with caplog.at_level(logging.WARNING):
        for _ in range(2 * LIMIT):
            found.add([("c_bad", "DataError: load_p has no number")], played=True)
    assert [record.getMessage() for record in caplog.records] == [
        "chronic c_bad: an episode was given up: DataError: load_p has no number"
    ]
    assert f"{2 * LIMIT} episodes" in found.summary() and f"c_bad ({2 * LIMIT})" in found.summary()


def test_a_run_in_which_nothing_can_be_played_ends_with_the_cause():
    found = Unplayable()
    with pytest.raises(DataError, match="no episode can be played.*c_bad: IndexError: 5"):
        for _ in range(LIMIT):
            found.add([("c_bad", "IndexError: 5")], played=False)


def test_nothing_given_up_is_nothing_to_tell():
    found = Unplayable()
    found.add([], played=False)
    assert found.summary() == ""
