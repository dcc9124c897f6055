"""The model card says what the other stages wrote down, and nothing else."""

import json

import pytest

from ace_ray.config.errors import DataError
from ace_ray.lab.embedded.card import card
from llm_service.settings import EMBEDDED

pytestmark = pytest.mark.unit


def test_a_card_without_a_training_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="training.json"):
        card(tmp_path)


def test_the_card_states_sizes_seeds_counts_and_figures(tmp_path):
    means = {"states": 49, "parsed": 1.0, "usable": 0.9, "model": 0.3, "first": 0.5, "random": 0.4}
    record = {
        "recipe": {
            "examples": 11200, "seed": 7, "lessons": 0.5, "rest": 0.3, "verified": 0.6, "critic": 0.08,
            "prompt_loss": 0.0, "lr": 0.001, "batch": 16,
        },
        "shape": {"layers": 4, "hidden": 192, "heads": 4, "kv_heads": 2, "intermediate": 512},
        "parameters": 2_190_528,
        "vocabulary": 2905,
        "labels": {"verified": 118, "bootstrap": 249, "episodes": 35, "validation": 198, "meta": {"plan": {"seed": 3}}},
        "device": "cpu",
        "torch": "2.13.0",
        "seconds": 1330.0,
        "curve": [{"step": 10, "loss": 7.9}, {"step": 700, "loss": 0.53}],
        "validation": {"all": {**means, "states": 198}, "pivotal": means},
    }  # fmt: skip
    (tmp_path / "training.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes(b"0" * 4_400_000)
    text = card(tmp_path)
    for part in (
        "2.19 million weights (4.4 MB",
        "118 decisions",
        "(seed 3)",
        "seed 7",
        "| 700 | 0.53 |",
        "| states | 198 | 49 |",
        "| survival regret, this model | 0.3 | 0.3 |",
        "22.2 minutes",
        "over the reply's tokens alone",
    ):
        assert part in text
    record["recipe"]["prompt_loss"] = 0.1
    (tmp_path / "training.json").write_text(json.dumps(record))
    assert "over the reply's tokens plus 0.1 times that over the prompt's" in card(tmp_path)
    unmeasured = {**record, "validation": {}}
    (tmp_path / "training.json").write_text(json.dumps(unmeasured))
    assert "Not measured" in card(tmp_path)


def test_the_shipped_card_is_what_its_files_say():
    assert (EMBEDDED / "README.md").read_text() == card(EMBEDDED)
