"""Profiles and overrides: who wins, and what a mistake is answered with."""

from pathlib import Path

import pytest
import yaml

from ace_ray.config.errors import ConfigError
from ace_ray.config.load import leaves, load_settings, to_yaml
from ace_ray.config.run import RunSettings
from ace_ray.grid.scenarios.environment import environment_folder

pytestmark = pytest.mark.unit

REPO = Path(__file__).resolve().parents[2]
PROFILES = sorted((REPO / "configs").rglob("*.yaml"))


def profile(folder: Path, text: str, name: str = "profile.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults() -> None:
    assert load_settings() == RunSettings()


def test_later_profiles_win_key_by_key_and_overrides_win_over_all(tmp_path: Path) -> None:
    first = profile(tmp_path, "seed: 1\nlearner: {batch: 8, lr: 0.1}", "first.yaml")
    second = profile(tmp_path, "learner: {batch: 16}", "second.yaml")
    settings = load_settings([first, second], ["learner.lr=0.2", "grid.data=null", "refine.refiner=off"])
    assert (settings.seed, settings.learner.batch, settings.learner.lr) == (1, 16, 0.2)
    assert settings.grid.data is None
    assert settings.refine.refiner == "off"  # YAML 1.1 reads a bare off as false


def test_a_last_part_that_only_one_setting_has_stands_for_the_whole_name() -> None:
    assert load_settings(overrides=["refiner=search"]).refine.refiner == "search"
    with pytest.raises(ConfigError, match="unknown setting 'batch'"):  # the learner has one, fine-tuning has one
        load_settings(overrides=["batch=8"])


def test_nothing_after_the_equals_sign_is_the_empty_text_where_a_text_is_wanted() -> None:
    settings = load_settings(overrides=["llm.endpoint.token_env=", "name= ", "grid.data="])
    assert (settings.llm.endpoint.token_env, settings.name, settings.grid.data) == ("", "", None)
    with pytest.raises(ConfigError, match=r"replay\.capacity"):
        load_settings(overrides=["replay.capacity="])


@pytest.mark.parametrize("text", ["off", "'off'", '"off"'])
def test_off_is_a_word_in_a_profile_too(tmp_path: Path, text: str) -> None:
    assert load_settings([profile(tmp_path, f"refine:\n  refiner: {text}\n")]).refine.refiner == "off"


def test_numbers_with_an_exponent_need_no_dot(tmp_path: Path) -> None:
    assert load_settings([profile(tmp_path, "learner: {lr: 5e-5}")]).learner.lr == 5e-5
    assert load_settings(overrides=["learner.lr=5e-5"]).learner.lr == 5e-5


def test_true_and_false_stay_what_they_are(tmp_path: Path) -> None:
    assert load_settings([profile(tmp_path, "finetune: {enabled: false}")]).finetune.enabled is False
    assert load_settings(overrides=["refine.seed_queue=true"]).refine.seed_queue is True


def test_a_setting_that_is_a_mapping_stays_whole(tmp_path: Path) -> None:
    path = profile(tmp_path, "llm: {engine: {chat_template_kwargs: {enable_thinking: false}}}")
    assert load_settings([path]).llm.engine.chat_template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("replay.capcity=1", "replay.capacity"),
        ("refinr=search", "refine.refiner"),
        ("learner.beta=0.5", "mixing.beta"),
        ("grid.critical.rho_overload=1", "grid.critical.rho_overloaded"),
    ],
)
def test_an_unknown_override_names_the_nearest_setting(override: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(overrides=[override])
    assert override.partition("=")[0] in caught.value.problem
    assert "command line" in caught.value.problem
    assert f"'{nearest}'" in caught.value.remedy


def test_an_unknown_key_in_a_profile_names_key_and_file(tmp_path: Path) -> None:
    path = profile(tmp_path, "refine:\n  round: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_settings([path])
    assert "refine.round" in caught.value.problem and str(path) in caught.value.problem
    assert "refine.rounds" in caught.value.remedy


def test_wrong_values_are_named_by_field_value_and_place(tmp_path: Path) -> None:
    path = profile(tmp_path, "replay: {capacity: many}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings([path], ["learner.batch=0"])
    text = caught.value.problem
    assert f"replay.capacity = 'many' ({path})" in text
    assert "learner.batch = 0 (command line): input should be greater than or equal to 1" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", ":2: key 'seed' is given twice"),
        ("seed: [1\n", "is not YAML"),
        ("- seed\n", "has a list instead of settings"),
        ("learner: 3\n", "'learner' is a section"),
        ("learner:\n", "'learner' is a section without a value"),
    ],
)
def test_a_broken_profile_says_what_is_broken(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings([profile(tmp_path, text)])
    assert said in caught.value.problem


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        load_settings([tmp_path / "nowhere.yaml"])


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="not an override"):
        load_settings(overrides=["seed"])


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_shipped_profile_loads_and_survives_the_way_to_disk(path: Path, tmp_path: Path) -> None:
    settings = load_settings([path])
    assert load_settings([profile(tmp_path, to_yaml(settings))]) == settings


GRIDS = sorted((REPO / "configs" / "grids").glob("*.yaml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_grids_profile_is_of_an_environment_that_exists_and_sets_nothing_but_the_grid(path: Path) -> None:
    settings = load_settings([path])
    assert path.stem == settings.grid.env.replace("/", "_")
    assert environment_folder(settings.grid.env).is_dir()
    assert settings.model_copy(update={"grid": RunSettings().grid}) == RunSettings()


def test_local_profile_sets_sizes_only() -> None:
    sizes = {
        "budget.minutes", "critic.start", "replay.warmup", "replay.shard_rows", "refine.seed_queue",
        "finetune.every", "finetune.examples", "rollout.workers", "policy.hidden", "policy.heads", "policy.layers",
        "learner.batch",
    }  # fmt: skip
    settings = load_settings([REPO / "configs" / "local.yaml"])
    given = yaml.safe_load((REPO / "configs" / "local.yaml").read_text(encoding="utf-8"))
    keys = {f"{section}.{key}" for section, values in given.items() for key in values}
    assert {key for key in keys if not key.startswith("resources.")} <= sizes
    assert 0 < settings.critic.start <= settings.replay.refined_capacity and settings.finetune.every >= 8
    assert keys <= set(leaves(RunSettings))


def test_profiles_and_overrides_change_what_they_name_of_a_base(tmp_path: Path) -> None:
    base = load_settings(overrides=["grid.cache_mb=99", "grid.candidates.slots=32", "seed=5"])
    profile = tmp_path / "p.yaml"
    profile.write_text("grid: {cache_mb: 77}\n")
    found = load_settings([profile], ["seed=6"], base=base)
    assert (found.grid.cache_mb, found.grid.candidates.slots, found.seed) == (77, 32, 6)
    assert load_settings(base=base) == base
