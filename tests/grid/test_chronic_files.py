"""A chronic whose files do not agree with the grid or each other is named when it is read, and nothing is played."""

import json

import numpy as np
import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.chronic_files import count_rows
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from tests.grid.short_chronics import ENV, ROWS, load, save, switches, write

pytestmark = pytest.mark.unit


def short(name):
    """Half of the rows of a table."""
    return lambda folder: save(folder / f"{name}.csv", load(folder / f"{name}.csv").head(ROWS // 2))


def without_a_column(name):
    return lambda folder: save(folder / f"{name}.csv", load(folder / f"{name}.csv").iloc[:, 1:])


def every_table(rows):
    def damage(folder):
        for path in folder.glob("*.csv"):
            save(path, load(path).head(rows))

    return damage


def foreign_column(folder):
    save(folder / "load_q.csv", load(folder / "load_q.csv").rename(columns={"load_1_0": "nobody"}))


def nan_load(folder):
    table = load(folder / "load_p.csv")
    table.loc[7, "load_4_3"] = np.nan
    save(folder / "load_p.csv", table)


def word_in_maintenance(folder):
    table = switches().astype(object)
    table.loc[2, "1_2_2"] = "yes"
    save(folder / "maintenance.csv", table)


def forecasts_of_two_horizons(folder):
    for path in folder.glob("*_forecasted.csv"):
        table = load(path)
        save(path, table.loc[table.index.repeat(2)])


def meta(**changes):
    content = {
        "maintenance_starting_hour": 9,
        "maintenance_ending_hour": 17,
        "line_to_maintenance": ["0_1_0"],
        "daily_proba_per_month_maintenance": [0.5] * 12,
        "max_daily_number_per_month_maintenance": [1] * 12,
        "maintenance_day_of_week": list(range(7)),
    } | changes
    content = {key: value for key, value in content.items() if value is not None}
    return lambda folder: (folder / "maintenance_meta.json").write_text(json.dumps(content))


def torn_archive(folder):
    path = folder / "load_p.csv"
    save(folder / "load_p.csv.bz2", load(path))
    path.unlink()
    cut = (folder / "load_p.csv.bz2").read_bytes()
    (folder / "load_p.csv.bz2").write_bytes(cut[: len(cut) // 2])


def no_archive(folder):
    (folder / "load_p.csv").rename(folder / "load_p.zip")


DAMAGE = {
    "lost_generator": (without_a_column("prod_p"), "prod_p has no column for generator gen_"),
    "lost_voltage": (without_a_column("prod_v"), "prod_v has no column for generator gen_"),
    "lost_load": (without_a_column("load_p"), "load_p has no column for load load_"),
    "lost_forecast": (without_a_column("load_p_forecasted"), "load_p_forecasted has no column for load load_"),
    "foreign": (foreign_column, "load_q has no column for load load_1_0 and a column nobody, which is no load"),
    "one_line_in_maintenance": (
        lambda f: save(f / "maintenance.csv", switches()[["1_3_3"]]),
        "maintenance has no column for line .* and 14 more",
    ),
    "one_line_in_hazards": (
        lambda f: save(f / "hazards.csv", switches()[["1_3_3"]]),
        "hazards has no column for line",
    ),
    "short_maintenance": (
        lambda f: save(f / "maintenance.csv", switches(ROWS // 2)),
        "differ in length: .*maintenance 6 rows",
    ),
    "short_hazards": (lambda f: save(f / "hazards.csv", switches(ROWS // 2)), "differ in length: hazards 6 rows"),
    "short_production": (short("prod_p"), "differ in length: .*prod_p 6 rows"),
    "short_reactive": (short("load_q"), "differ in length: .*load_q 6 rows"),
    "short_forecast": (short("prod_p_forecasted"), "prod_p_forecasted has 6 rows, and 12 rows with 1 forecasts"),
    "long_forecasts": (forecasts_of_two_horizons, "load_p_forecasted has 13 rows"),
    "headers": (every_table(0), "have 0 rows"),
    "one_row": (every_table(1), "have 1 rows"),
    "nan": (nan_load, "load_p has 'nan' for load_4_3 in row 7"),
    "word": (word_in_maintenance, "maintenance has 'yes' for 1_2_2 in row 2"),
    "empty": (lambda f: (f / "load_p.csv").write_text(""), "EmptyDataError"),
    "binary": (lambda f: (f / "load_q.csv").write_bytes(bytes(range(128, 256))), "load_q has|UnicodeDecodeError"),
    "torn_archive": (torn_archive, "cannot be read"),
    "no_archive": (no_archive, "BadZipFile"),
    "date": (lambda f: (f / "start_datetime.info").write_text("yesterday"), "yesterday"),
    "no_interval": (lambda f: (f / "time_interval.info").write_text("00:00"), "an interval of 0:00:00"),
    "meta_line": (meta(line_to_maintenance=["9_9_9"]), "names 9_9_9, which is no line"),
    "meta_months": (meta(max_daily_number_per_month_maintenance=[1] * 11), "11 values of max_daily"),
    "meta_chance": (meta(daily_proba_per_month_maintenance=[1.5] * 12), "robabilities"),
    "meta_field": (meta(line_to_maintenance=None), "line_to_maintenance"),
    "meta_list": (lambda f: (f / "maintenance_meta.json").write_text("[]"), "cannot be read"),
    "diverges": (lambda f: save(f / "load_p.csv", load(f / "load_p.csv") * 1e4), "over before it begins, at row 0"),
    "init_state": (lambda f: (f / "init_state.json").write_text("{"), "init_state.json"),
}


def shuffled_and_quoted(folder):
    for path in folder.glob("*.csv"):
        load(path).iloc[:, ::-1].to_csv(path, sep=";", index=False, quoting=1, lineterminator="\r\n")


def with_blank_lines(folder):
    for path in folder.glob("*.csv"):
        path.write_text(path.read_text() + "\n\n")


def packed(ending):
    def pack(folder):
        for path in folder.glob("*.csv"):
            save(path.with_name(path.stem + ending), load(path))
            path.unlink()

    return pack


SOUND = {
    "shuffled": shuffled_and_quoted,
    "blank_lines": with_blank_lines,
    "bz2": packed(".csv.bz2"),
    "xz": packed(".csv.xz"),
    "zip": packed(".zip"),
    "switched": lambda f: [save(f / f"{name}.csv", switches()) for name in ("maintenance", "hazards")],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a chronic for every case; the one that comes first is broken."""
    root = tmp_path_factory.mktemp("chronics")
    for name in ("plain", *SOUND, *DAMAGE):
        write(root / name, 400 if name == "meta_chance" else ROWS)  # maintenance is drawn by whole days
    for name, change in SOUND.items():
        change(root / name)
    for name, (change, _) in DAMAGE.items():
        change(root / name)
    assert sorted((*SOUND, *DAMAGE))[0] in DAMAGE
    return root


@pytest.fixture(scope="module")
def grid(folder):
    """One environment for all cases: it opens although the first chronic cannot be read."""
    env = make_env(GridSettings(env=ENV, data=str(folder)))
    yield env
    env.close()


def start(env, chronic):
    return reset_to(env, Scenario(ENV, env.ace_data.id, chronic, env_seed=0))


@pytest.mark.parametrize("name", DAMAGE)
def test_a_chronic_that_cannot_be_played_is_named_when_it_is_read(grid, name):
    with pytest.raises(DataError, match=DAMAGE[name][1]) as caught:
        start(grid, name)
    assert name in caught.value.problem and caught.value.remedy
    assert len(caught.value.problem) < 1000
    assert start(grid, "plain").rho.max() > 0, "the environment serves on"


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_chronic_is_read_however_its_files_are_written(grid, folder, name):
    assert count_rows(str(folder / name)) == ROWS
    expected = start(grid, "plain")
    found = start(grid, name)
    assert np.array_equal(found.load_p, expected.load_p) and np.array_equal(found.gen_v, expected.gen_v)
    steps, done = 0, False
    while not done:
        _, _, done, info = grid.step(grid.action_space())
        steps += 1
    assert steps == ROWS - 1 and not info["exception"]


def test_an_environment_without_a_single_chronic_that_can_be_read_is_refused(tmp_path):
    foreign_column(write(tmp_path / "only"))
    with pytest.raises(DataError, match="only cannot be read: load_q"):
        make_env(GridSettings(env=ENV, data=str(tmp_path)))
