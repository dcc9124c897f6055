"""docs/configuration.md and the paper's values keep up with the code."""

from pathlib import Path

import pytest

from ace_ray.config.load import leaves, load_settings, profile_keys
from ace_ray.config.paper import PAPER_PROFILE, differences, differences_text
from ace_ray.config.reference import PAGE, render
from ace_ray.config.run import RunSettings

pytestmark = pytest.mark.unit


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "docs/configuration.md is stale: run `make docs`"


def test_the_page_names_and_explains_every_setting() -> None:
    rows = [line.split(" | ") for line in render().splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == [*sorted_by_section()]
    assert all(row[-1].strip("| ") for row in rows), "a setting has no description"


def sorted_by_section() -> list[str]:
    """All settings; a section's own ones before those of the sections inside it, as the page has them."""
    order: dict[str, list[str]] = {}
    for name in leaves(RunSettings):
        order.setdefault(name.rpartition(".")[0], []).append(name)
    listed = [line.strip("# `\n") for line in render().splitlines() if line.startswith("## `")]
    return order[""] + [name for section in listed for name in order[section]]


def test_the_papers_own_profile_differs_in_nothing() -> None:
    settings = load_settings([PAPER_PROFILE])
    assert differences(settings) == []
    assert "as published" in differences_text(settings)


def test_a_difference_names_both_values() -> None:
    settings = load_settings([PAPER_PROFILE], ["learner.lr=0.001", "rollout.workers=7"])
    assert [str(item) for item in differences(settings)] == ["learner.lr = 0.001 (paper: 5e-05)"]


def test_a_value_that_equals_the_default_is_still_compared(tmp_path: Path) -> None:
    assert "mixing.beta" in profile_keys(PAPER_PROFILE)
    changed = load_settings([PAPER_PROFILE], ["mixing.beta=0.25"])
    assert [item.key for item in differences(changed)] == ["mixing.beta"]
