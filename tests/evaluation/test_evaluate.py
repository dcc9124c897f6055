from dataclasses import replace

import numpy as np
import pytest
from grid2op.Agent import BaseAgent
from grid2op.Episode import EpisodeData

from ace_ray.agents.greedy import DoNothing, Reconnect
from ace_ray.config.errors import AceError, ConfigError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.evaluate import Extras, evaluate_all
from ace_ray.evaluation.play import play, refused
from ace_ray.evaluation.player import EpisodeJob
from ace_ray.evaluation.result import load
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from tests.grid.short_chronics import ENV, ROWS, save, write
from tests.grid.short_chronics import load as read_table

pytestmark = pytest.mark.unit

SHORT = "chronics=0;seeds=0-1;steps=30"


def scenario(**changes):
    return replace(Scenario("l2rpn_neurips_2020_track1", "shipped", "Scenario_august_dummy", 3, 0, 40), **changes)


@pytest.fixture(scope="module")
def nothing(env, grid_settings):
    env.reset()
    return DoNothing(env.action_space, DecisionEngine(env, grid_settings))


class Scripted(BaseAgent):
    """Plays one action at one step and does nothing else."""

    def __init__(self, action_space, step, action):
        super().__init__(action_space)
        self.at, self.action, self.count = step, action, 0

    def reset(self, obs):
        self.count = 0

    def act(self, observation, reward, done=False):
        self.count += 1
        return self.action if self.count - 1 == self.at else self.action_space({})


def test_a_full_episode_has_all_steps_and_the_sum_of_step_rewards(env, nothing, grid_settings):
    played = play(env, nothing, scenario(max_steps=25), grid_settings)
    assert (played.episode.steps, played.episode.max_steps, played.blackout) == (25, 25, False)
    obs, total = reset_to(env, scenario()), 0.0
    for _ in range(25):
        obs = env.step(env.action_space())[0]
        total += float(obs.load_p.sum() / obs.gen_p.sum()) - 0.9
    assert played.episode.reward == pytest.approx(total, abs=1e-6)
    assert played.episode.decisions == 0 and played.episode.illegal_actions == 0


def test_a_start_step_shortens_the_episode_and_it_still_ends_in_full(env, nothing, grid_settings):
    played = play(env, nothing, scenario(start_step=850, max_steps=None), grid_settings)
    assert (played.episode.steps, played.episode.max_steps, played.blackout) == (14, 14, False)


def test_a_blackout_counts_the_steps_before_it_and_costs_one(env, grid_settings, nothing):
    obs = reset_to(env, scenario())
    catalogue = nothing.engine.catalogue
    legal = np.flatnonzero(catalogue.legal(obs) & (catalogue.kind == 2))
    deadly = next(a for a in (catalogue.action([i], obs) for i in legal) if obs.simulate(a)[2])
    played = play(env, Scripted(env.action_space, 0, deadly), scenario(), grid_settings)
    assert played.blackout and played.episode.steps == 0 and played.episode.reward == -1.0
    last_step = play(env, Scripted(env.action_space, 0, deadly), scenario(max_steps=1), grid_settings)
    assert last_step.blackout and last_step.episode.steps == 0  # not a full episode though its only step was played


def test_illegal_ambiguous_and_void_actions_are_counted(env, grid_settings):
    obs = reset_to(env, scenario())
    space = env.action_space
    present = space({"set_bus": {"lines_or_id": [(3, 1)]}})
    illegal = space({"set_bus": {"substations_id": [(s, np.ones(env.sub_info[s], int)) for s in (1, 4)]}})
    ambiguous = space({"set_bus": {"lines_or_id": [(3, 2)]}, "change_bus": {"lines_or_id": [3]}})
    fine = space({"set_line_status": [(3, -1)]})
    assert obs.line_status[3]
    for action, count in ((present, 1), (illegal, 1), (ambiguous, 1), (fine, 0)):
        played = play(env, Scripted(space, 1, action), scenario(max_steps=4), grid_settings)
        assert played.episode.illegal_actions == count, action


def test_an_action_without_effect_is_void_unless_somebody_undid_it(env):
    before = reset_to(env, scenario())
    action = env.action_space({"set_bus": {"lines_or_id": [(3, 2)]}})
    fine = {"is_illegal": False, "is_ambiguous": False, "opponent_attack_line": None}
    fine |= {"disc_lines": np.full(env.n_line, -1)}
    assert refused(action, before, before, fine, dead=False)
    assert not refused(action, before, before, fine, dead=True)
    assert not refused(env.action_space(), before, before, fine, dead=False)
    for line, void in ((3, False), (4, True)):
        attack, opened = np.arange(env.n_line) == line, np.where(np.arange(env.n_line) == line, 0, -1)
        assert refused(action, before, before, fine | {"opponent_attack_line": attack}, dead=False) == void
        assert refused(action, before, before, fine | {"disc_lines": opened}, dead=False) == void


def test_a_reconnection_that_a_lasting_attack_undoes_is_neither_illegal_nor_void():
    settings = GridSettings(env="l2rpn_idf_2023", data="shipped")
    env = make_env(settings)
    env.reset()
    agent, undone = Reconnect(env.action_space, DecisionEngine(env, settings)), []

    class Undone:
        def start(self, env, agent, observation, length):
            pass

        def step(self, number, before, action, after, reward, info, seconds):
            tried = (action.set_bus[env.line_or_pos_topo_vect] > 0) & ~before.line_status
            undone.extend(np.flatnonzero(tried & ~after.line_status))

    attacked = Scenario("l2rpn_idf_2023", "shipped", "2035-01-15_0", env_seed=0, max_steps=150)
    played = play(env, agent, attacked, settings, [Undone()])
    env.close()
    assert undone
    assert played.episode.illegal_actions == 0


def test_decisions_of_an_outside_agent_are_its_calls_in_overloads(env, grid_settings):
    always = grid_settings.critical.model_copy(update={"rho_overloaded": 0.01})
    agent = Scripted(env.action_space, 0, env.action_space())
    played = play(env, agent, scenario(max_steps=6), grid_settings.model_copy(update={"critical": always}))
    assert played.episode.decisions == 6 and len(played.decision_seconds) == 6
    assert play(env, agent, scenario(max_steps=6), grid_settings).episode.decisions == 0


def test_agents_play_the_same_scenarios_and_the_result_is_kept(grid_settings, tmp_path):
    found = evaluate_all(["do-nothing", "greedy"], SHORT, grid_settings, processes=1, progress=False)
    assert [one.agent for one in found] == ["do-nothing", "greedy"]
    assert [[e.scenario for e in one.episodes] for one in found] == [
        [("Scenario_august_dummy", seed, 0, 30, 0.0, 0.0) for seed in (0, 1)]
    ] * 2
    nothing, greedy = found
    assert nothing.actions == 0 and nothing.decision_ms["p50"] is None and greedy.decision_ms["p50"] > 0
    assert not greedy.in_sample  # chronic 0 of the shipped data is the one that training sees, but rules do not train
    assert greedy.catalogue and greedy.versions["grid2op"] and greedy.predicate == "both" and greedy.data == "shipped"
    greedy.save(tmp_path / "x.json")
    assert load(tmp_path / "x.json") == greedy


@pytest.mark.parametrize(
    ("agent", "scenarios", "error"),
    [("greedier", SHORT, ConfigError), ("policy:no_run", SHORT, AceError), ("greedy", "week:1", AceError)]
    + [("greedy", "chronics=0,0;seeds=0", DataError)],
)
def test_bad_input_is_named_before_any_work(agent, scenarios, error, grid_settings, monkeypatch):
    monkeypatch.setattr("ace_ray.evaluation.pool.Pool.run", lambda *_: pytest.fail("work was started"))
    with pytest.raises(error) as caught:
        evaluate_all([agent], scenarios, grid_settings, processes=1, progress=False)
    assert caught.value.remedy


def test_every_episode_is_saved_as_episode_data_with_a_picture_of_the_first(env, grid_settings, tmp_path):
    extras = Extras(episodes=tmp_path / "saved", figure=tmp_path / "step.png")
    short = "chronics=0;seeds=3-4;steps=12"
    (found,) = evaluate_all(["greedy"], short, grid_settings, processes=1, progress=False, extras=extras)
    saved = EpisodeData.list_episode(str(tmp_path / "saved" / "greedy"))
    assert [name for _, name in saved] == [f"Scenario_august_dummy_seed{seed}_start0_steps12" for seed in (3, 4)]
    data = EpisodeData.from_disk(*saved[0])
    assert int(data.meta["nb_timestep_played"]) == 12 and len(data.actions) == 12 and len(data.observations) == 13
    assert np.nansum(data.rewards) == pytest.approx(found.episodes[0].reward, abs=1e-4)
    acting = [action.can_affect_something() for action in data.actions]
    assert any(acting) and sum(acting) == found.episodes[0].actions
    obs = reset_to(env, scenario(max_steps=12))
    for i in range(12):
        assert np.allclose(data.observations[i].rho, obs.rho, atol=1e-6)
        obs = env.step(data.actions[i])[0]
    assert (tmp_path / "step.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(DataError, match="exists already"):
        evaluate_all(["greedy"], short, grid_settings, processes=1, progress=False, extras=extras)


def test_a_figure_that_cannot_be_drawn_is_told_after_the_first_episode(grid_settings, tmp_path, monkeypatch):
    played = []
    whole = EpisodeJob.play
    monkeypatch.setattr(EpisodeJob, "play", lambda job, player: played.append(job) or whole(job, player))
    extras = Extras(figure=tmp_path / "x.png", figure_step=50)
    with pytest.raises(DataError, match="no environment step 50"):
        evaluate_all(["do-nothing"], "chronics=0;seeds=3-6;steps=3", grid_settings, processes=1, extras=extras)
    assert len(played) == 1


def test_agents_on_different_grids_are_refused(grid_settings):
    other = grid_settings.model_copy(update={"env": "l2rpn_case14_sandbox"})
    with pytest.raises(ConfigError, match="reconnect on l2rpn_case14_sandbox"):
        evaluate_all(["do-nothing", "reconnect"], SHORT, [grid_settings, other], processes=1)


def test_a_chronic_that_cannot_be_read_costs_no_episode_of_the_others(tmp_path, monkeypatch):
    for name in ("a_good", "b_bad", "c_good"):
        write(tmp_path / name)
    save(tmp_path / "b_bad" / "prod_p.csv", read_table(tmp_path / "b_bad" / "prod_p.csv").iloc[:, 1:])
    monkeypatch.setattr("ace_ray.evaluation.evaluate._play", lambda *_: pytest.fail("nothing may be played"))
    settings = GridSettings(env=ENV, data=str(tmp_path))
    with pytest.raises(DataError, match=r"1 of 3 chronics cannot be played \(b_bad\).*prod_p has no column"):
        evaluate_all(["do-nothing"], "chronics=all;seeds=0", settings, processes=1, progress=False)


def test_the_good_chronics_of_a_folder_are_played_by_name(tmp_path):
    for name in ("a_good", "b_bad"):
        write(tmp_path / name)
    (tmp_path / "b_bad" / "prod_p.csv").write_text("")
    settings = GridSettings(env=ENV, data=str(tmp_path))
    (found,) = evaluate_all(["do-nothing"], "chronics=a_good;seeds=0", settings, processes=1, progress=False)
    assert [episode.steps for episode in found.episodes] == [ROWS - 1]
