"""Sets of scenarios: what is written is what is played, and nothing that is tested was trained on."""

from itertools import islice

import pytest

from ace_ray.config.errors import ConfigError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.data import PACKAGED, SPLITS
from ace_ray.grid.scenarios.environment import data_set, make_env
from ace_ray.grid.scenarios.scenario import episode_length, reset_to
from ace_ray.grid.scenarios.scenario_sets import parse, training_scenarios
from tests.grid.short_chronics import ENV, load, save, write

pytestmark = pytest.mark.unit

DEFAULT = GridSettings()
SHIPPED = GridSettings(data="shipped")
ONE_CHRONIC = GridSettings(env="l2rpn_wcci_2020", data="shipped")


def test_the_packaged_weeks_are_the_default_and_split_by_week():
    data = data_set(DEFAULT)
    assert data.id == "packaged"
    assert {key: len(data.split[key]) for key in SPLITS} == {"train": 16, "validation": 6, "test": 6}
    seeds = {key: {int(name.rpartition("_")[2]) for name in data.split[key]} for key in SPLITS}
    assert seeds["validation"] == set(range(1032, 1038)) and seeds["test"] == set(range(1038, 1044))
    assert max(seeds["train"]) < 1032 and set(range(1000, 1012)) <= seeds["train"]
    assert sum(f.stat().st_size for f in PACKAGED.rglob("*") if f.is_file()) < 8_000_000


@pytest.mark.parametrize("settings", [DEFAULT, GridSettings(env="l2rpn_case14_sandbox")])
def test_splits_share_no_chronic_and_no_seed(settings):
    sets = {key: parse(f"{key}:12", settings) for key in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert {s.chronic for s in sets[one].scenarios}.isdisjoint(s.chronic for s in sets[other].scenarios)
        assert {s.env_seed for s in sets[one].scenarios}.isdisjoint(s.env_seed for s in sets[other].scenarios)
    trained = list(islice(training_scenarios(settings, seed=0), 200))
    for key in ("validation", "test"):
        assert not sets[key].in_sample
        assert {s.chronic for s in trained}.isdisjoint(s.chronic for s in sets[key].scenarios)
    assert sets["train"].in_sample


@pytest.mark.parametrize("settings", [SHIPPED, ONE_CHRONIC])
def test_chronics_that_splits_share_are_cut_into_windows_and_labelled(settings):
    """Two chronics: validation shares the first with training. One: all three share it."""
    env = make_env(settings)
    sets = {key: parse(f"{key}:4", settings) for key in SPLITS}
    assert sets["validation"].in_sample
    assert sets["test"].in_sample == (len(env.ace_data.chronics) == 1)

    def steps(scenarios):
        return {(s.chronic, s.start_step + i) for s in scenarios for i in range(episode_length(env, s))}

    played = {key: steps(sets[key].scenarios) for key in SPLITS}
    played["train"] |= steps(islice(training_scenarios(settings, seed=1), 50))
    assert all(played.values())
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert played[one].isdisjoint(played[other])
    env.close()


def test_scenarios_of_a_split_are_whole_weeks_with_seeds_that_vary_with_the_chronic():
    scenarios = parse("test:12", DEFAULT).scenarios
    assert len(set(scenarios)) == 12 and len({s.env_seed for s in scenarios}) == 12
    assert len({s.chronic for s in scenarios[:6]}) == 6
    assert all(s.start_step == 0 and s.max_steps is None for s in scenarios)
    assert parse("test:4", DEFAULT).scenarios == scenarios[:4], "a smaller set is the beginning of a larger one"


def test_where_nothing_is_drawn_from_the_seed_a_second_turn_starts_elsewhere():
    scenarios = parse("train:6", GridSettings(env="rte_case14_realistic")).scenarios
    assert len({(s.chronic, s.start_step) for s in scenarios}) == 6


def test_chronics_and_seeds_are_crossed_or_counted_up():
    crossed = parse("chronics=0,2-3;seeds=0-1,7", SHIPPED.model_copy(update={"data": None})).scenarios
    names = data_set(DEFAULT).chronics
    assert [(s.chronic, s.env_seed) for s in crossed] == [(names[i], k) for i in (0, 2, 3) for k in (0, 1, 7)]
    counted = parse("chronics=all;seeds=500+;steps=864", DEFAULT)
    assert [(s.chronic, s.env_seed) for s in counted.scenarios] == [(n, 500 + i) for i, n in enumerate(names)]
    assert {s.max_steps for s in counted.scenarios} == {864} and counted.split == "custom" and counted.in_sample
    named = parse("chronics=jun_1041;seeds=3;start=288", DEFAULT)
    assert (named.split, named.in_sample, named.scenarios[0].start_step) == ("test", False, 288)


def test_training_draws_the_same_scenarios_for_the_same_seed_and_all_chronics():
    first, again = (list(islice(training_scenarios(DEFAULT, seed=5), 40)) for _ in range(2))
    other = list(islice(training_scenarios(DEFAULT, seed=6), 40))
    assert first == again != other
    assert {s.chronic for s in first} == set(data_set(DEFAULT).split["train"])
    assert len({s.env_seed for s in first}) == 40 and len({s.start_step for s in first}) > 30
    assert all(2017 - s.start_step >= 288 for s in first)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("exam:3", ConfigError, "no split 'exam'"),
        ("test", ConfigError, "cannot be read"),
        ("test:many", ConfigError, "not a whole number"),
        ("chronics=0", ConfigError, "cannot be read"),
        ("test:3;chronics=0", ConfigError, "names a split and chronics"),
        ("chronics=77;seeds=0", DataError, "has 28"),
        ("chronics=jan;seeds=0", ConfigError, "not a whole number"),
        ("test:2;hours=3", ConfigError, "'hours=3' cannot be read"),
        ("test:0", ConfigError, "test=0 .* not within 1 and 10000"),
        ("test:10001", ConfigError, "test=10001 .* not within"),
        ("test:²", ConfigError, "'²' is not a whole number"),
        ("chronics=0;seeds=-3", ConfigError, "'-3' is not a whole number .seeds"),
        ("chronics=0;seeds=5-3", ConfigError, "seeds=5-3 .* runs backwards"),
        ("chronics=0;seeds=0-2000000000", ConfigError, "seeds=0-2000000000 .* more than 100000"),
        ("chronics=0;seeds=2147483648", ConfigError, "seeds=2147483648 .* not within 0 and 2147483647"),
        ("chronics=0-1;seeds=2147483647+", ConfigError, "seeds=2147483647 .* not within"),
        ("chronics=all;seeds=0-99999", ConfigError, "28 chronics with 100000 seeds"),
        ("chronics=0;seeds=1;seeds=2", ConfigError, "says seeds twice"),
        ("chronics=0;seeds=0;steps=0", ConfigError, "steps=0 .* not within 1"),
        ("chronics=0;seeds=0;start=2017", ConfigError, "start=2017 .* not within 0 and 2016"),
        ('chronics="jan;seeds=0', ConfigError, "quote is not closed"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(text, error, words):
    with pytest.raises(error, match=words) as caught:
        parse(text, DEFAULT)
    assert caught.value.remedy


def by_seed(name: str) -> str:
    seed = int(name.rpartition("_")[2])
    return "train" if seed < 1032 else "validation" if seed < 1038 else "test"


def by_month(name: str) -> str:
    month = name.partition("_")[0]
    return "validation" if month in ("jul", "aug", "sep") else "test" if month in ("oct", "nov", "dec") else "train"


def february(name: str) -> str:
    return "validation" if name.startswith("Scenario_february_") or name == "Scenario_january_032" else "test"


@pytest.mark.parametrize(
    ("folder", "env", "rule"),
    [
        ("36sub/generated_weeks", "l2rpn_neurips_2020_track1", by_seed),
        ("36sub/icaps_2021_weeks", "l2rpn_icaps_2021", by_month),
        ("36sub/wcci_2020_months", "l2rpn_wcci_2020", february),
        ("118sub/wcci_2022_weeks", "l2rpn_wcci_2022_dev", None),
    ],
)
def test_the_development_sets_are_played_as_their_documentation_splits_them(folder, env, rule, test_data):
    settings = GridSettings(env=env, data=str(test_data / folder))
    data = data_set(settings)
    place = {name: i for i, name in enumerate(data.chronics)}
    rule = rule or (lambda name: "train" if place[name] < 9 else "validation" if place[name] < 13 else "test")
    for key in SPLITS:
        expected = [name for name in data.chronics if rule(name) == key]
        assert list(data.split[key]) == expected
        if not expected:
            with pytest.raises(DataError, match=f"no {key} chronics"):
                parse(f"{key}:1", settings)
            continue
        chosen = parse(f"{key}:{len(expected)}", settings)
        assert [s.chronic for s in chosen.scenarios] == expected and chosen.in_sample == (key == "train")
    environment = make_env(settings)
    for key in ("validation", "test"):
        first = parse(f"{key}:1;steps=5", settings).scenarios[0]
        assert reset_to(environment, first).rho.max() > 0
    environment.close()


def test_the_two_chronics_inside_grid2op_train_on_the_first_and_test_on_the_second():
    split = data_set(SHIPPED).split
    first, second = data_set(SHIPPED).chronics
    assert split == {"train": (first,), "validation": (first,), "test": (second,)}


def test_chronics_that_are_called_by_numbers_are_named_in_quotes_where_an_index_is_also_a_name(tmp_path):
    for name in ("0", "1", "2", "10", "11", "a,b;c"):
        (tmp_path / name).mkdir()
    settings = GridSettings(env="l2rpn_case14_sandbox", data=str(tmp_path))

    def named(text):
        return [s.chronic for s in parse(f"chronics={text};seeds=0", settings).scenarios]

    assert named("0-1") == ["0", "1"] and named("5") == ["a,b;c"]  # one meaning only
    assert named('"2","a,b;c"') == ["2", "a,b;c"] and named("11") == ["11"]
    for ambiguous in ("2", "1-2", "2,3"):
        with pytest.raises(ConfigError, match="may be a name or an index") as caught:
            named(ambiguous)
        assert "double quotes" in caught.value.remedy


def test_a_chronic_that_cannot_be_counted_ends_no_training_scenarios(tmp_path):
    for name in ("a", "b", "c", "d"):
        write(tmp_path / name)
    for table in (tmp_path / "b").glob("*.csv"):
        save(table, load(table).head(0))
    (tmp_path / "split.json").write_text('{"train": ["a", "b", "c"], "validation": ["d"], "test": []}')
    settings = GridSettings(env=ENV, data=str(tmp_path))
    drawn = list(islice(training_scenarios(settings, seed=0), 9))
    assert {scenario.chronic for scenario in drawn} == {"a", "b", "c"}
    env = make_env(settings)
    with pytest.raises(DataError, match="rows"):
        reset_to(env, next(scenario for scenario in drawn if scenario.chronic == "b"))
    assert reset_to(env, next(scenario for scenario in drawn if scenario.chronic == "a")) is not None
    env.close()
