"""The profile called paper is the paper's, in every value that the paper publishes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ace_ray.config.load import dotted, load_settings, profile_keys
from ace_ray.config.paper import PAPER_PROFILE

pytestmark = pytest.mark.unit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "method.md"


def published() -> dict[str, Any]:
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {key: yaml.safe_load(value) for key, value in rows}


def test_every_published_value_is_set_and_nothing_else_is() -> None:
    settings = load_settings([PAPER_PROFILE])
    assert len(published()) > 30
    assert {key: dotted(settings, key) for key in published()} == published()
    assert set(profile_keys(PAPER_PROFILE)) == set(published())
