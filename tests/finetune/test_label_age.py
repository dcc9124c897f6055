"""Gate and seed files say when they were replayed with another decision engine."""

import json
import logging

import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.finetune.held_out import aged, warn_if_aged
from ace_ray.grid.domain import GridDomain
from ace_ray.grid.fingerprint import behaviour

pytestmark = pytest.mark.unit


def _model(folder, **meta):
    (folder / "gate.parquet").touch()
    (folder / "seeds.parquet").touch()
    (folder / "labels.json").write_text(json.dumps(meta))
    return folder


def test_files_of_the_present_engine_are_not_aged_and_others_are(tmp_path, caplog):
    settings = GridSettings(candidates={"slots": 16, "shortlist": 32})
    plan, found = {"grid": settings.model_dump()}, behaviour(settings)
    assert aged(tmp_path, GridDomain()) is None  # nothing there
    _model(tmp_path, plan=plan, behaviour=found)
    assert aged(tmp_path, GridDomain()) is None
    warn_if_aged(tmp_path, GridDomain())
    assert not caplog.records
    found[2]["rules"] = [1]
    _model(tmp_path, plan=plan, behaviour=found)
    assert "acts differently" in aged(tmp_path, GridDomain())
    with caplog.at_level(logging.WARNING):
        warn_if_aged(tmp_path, GridDomain())
    (record,) = caplog.records
    assert f"ace llm build-embedded --out {tmp_path} --stage replay" in record.getMessage()


def test_files_that_cannot_be_judged_say_why(tmp_path):
    assert "do not say" in aged(_model(tmp_path), GridDomain())
    assert "unknown here" in aged(_model(tmp_path, plan={"grid": {"env": "no_such_grid"}}, behaviour=[]), GridDomain())
    assert "unknown here" in aged(_model(tmp_path, plan={"grid": {"no_such_key": 1}}, behaviour=[]), GridDomain())
