from pathlib import Path

import pytest

from ace_ray.replay import records
from ace_ray.replay.counters import RESULTS
from tests.replay.rows import SHAPE

pytestmark = pytest.mark.unit

PAGE = Path(__file__).parents[2] / "docs" / "replay.md"


@pytest.mark.parametrize("kind", records.KINDS)
def test_the_page_names_every_column(kind):
    part = PAGE.read_text().split(f"**{kind}**")[1].split("\n**")[0]
    missing = [name for name in records.schema(kind, SHAPE).names if f"`{name}`" not in part and name != "id"]
    assert not missing


def test_the_page_names_every_result():
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in (*RESULTS, *records.SOURCES))
