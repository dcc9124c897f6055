"""The figures of `ace bench llm`: what is asked, what the ratio is a ratio of, and the models of random weights."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ace_ray.cli.parser import MODEL_SIZES
from ace_ray.lab.bench import llm as bench
from ace_ray.lab.bench.llm import Speed, measure_service, speed_lines
from ace_ray.lab.bench.random_model import SIZES, random_adapter, random_model
from llm_service.settings import EngineSettings, ServiceSettings
from llm_service.versions import merge

pytestmark = pytest.mark.unit
CHATS = [[{"role": "system", "content": "rules"}, {"role": "user", "content": f"state {n}"}] for n in range(3)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> list[Any]:
    """What the two ways were asked; they answer with known speeds."""
    seen: list[Any] = []

    def both_ways(settings: ServiceSettings, asked: Any, folder: Path) -> Any:
        seen.append((settings, asked))
        runs = len(asked.waves)
        through = {who: [Speed(2.0 + n, 3.0, 4, 400, 120) for n in range(runs)] for who in asked.by_version()}
        alone = {who: [Speed(1.5 if n else 3.0, 2.4, 4, 400, 120) for n in range(runs)] for who in asked.by_version()}
        return through, alone, 3.5, "model@12345678"

    monkeypatch.setattr(bench, "_both_ways", both_ways)
    return seen


def _measure(tiny_model: Path, adapters: str = "lora") -> dict[str, Any]:
    engine = EngineSettings(model=str(tiny_model), max_model_len=512, adapters=adapters)  # type: ignore[arg-type]
    return measure_service(ServiceSettings(engine=engine), CHATS, {"type": "object"}, requests=4, tokens=32)


def test_no_question_comes_twice_and_all_are_sent_at_once(asked: list[Any], tiny_model: Path) -> None:
    _measure(tiny_model)
    ((settings, question),) = asked
    texts = [chat[-1]["content"] for wave in question.waves for chat in wave]
    assert len(texts) == 12 and len(set(texts)) == 12
    assert all(chat[0] == CHATS[0][0] for wave in question.waves for chat in wave)  # the stable beginning stays one
    assert settings.max_in_flight == 4
    assert question.version is not None and question.version.role == "actor"


def test_the_ratio_is_the_median_of_neighbours_and_its_keys_are_documented(asked: list[Any], tiny_model: Path) -> None:
    result = json.loads(json.dumps(_measure(tiny_model)))
    assert result["service"]["version"]["tokens_per_s"] == 40.0  # the median repetition took 3 s
    assert result["ratios"]["version"] == [1.5, 0.5, 0.375]  # 3 s beside 2 s, then 1.5 s beside 3 s and 4 s
    assert result["ratio"] == result["ratio_base"] == 0.5
    assert result["ratio_cpu"] == pytest.approx(0.8)
    assert any("ratio 0.50, the median of 3 (0.38 to 1.50)" in line for line in speed_lines(result))
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    (section,) = [part for part in page.split("\n## ") if part.startswith("`ace bench llm")]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(result)


def test_without_adapters_the_base_model_is_all_there_is(asked: list[Any], tiny_model: Path) -> None:
    result = _measure(tiny_model, adapters="off")
    assert set(result["service"]) == {"base"}
    assert result["ratio"] == result["ratio_base"]
    assert not any("adapter" in line for line in speed_lines(result))


def test_a_model_of_random_weights_has_the_size_that_it_is_called_by(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    assert tuple(SIZES) == MODEL_SIZES
    directory = random_model("10M", tmp_path / "10M")
    base = load_file(directory / "model.safetensors")
    assert 9e6 < sum(weights.numel() for weights in base.values()) < 12e6
    ref = random_adapter(directory, tmp_path / "adapters", rank=8)
    merge(directory, Path(ref.path), tmp_path / "merged")
    changed = load_file(tmp_path / "merged" / "model.safetensors")
    assert changed.keys() == base.keys()
    assert not torch.equal(changed["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"])
