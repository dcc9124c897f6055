"""`ace bench drills --make-bank`: draws the drills of a bank out of the chronics of a split.

Chronics come in turn, in an order that is drawn anew each time round; start and warm-up are drawn evenly. The line is
drawn where greedy's own warm-up ends: in an attack by the opponent's rule (rho over its usual rho), in a load rise
evenly among the five whose loss loads the grid most without an overload at once. A drill whose warm-up greedy does not
survive is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ace_ray.config.drills import DrillSettings
from ace_ray.config.errors import ConfigError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.play import play
from ace_ray.evaluation.player import Player
from ace_ray.evaluation.pool import Pool
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.opponent import Opponent
from ace_ray.grid.physics.model import GridState
from ace_ray.grid.physics.security import Security, attackable_lines
from ace_ray.grid.scenarios.data import SPLITS, DataSet
from ace_ray.grid.scenarios.drill_banks import FAMILIES, DrillBank, bank_file, write_bank
from ace_ray.grid.scenarios.drills import Drill, Family, undisturbed
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from ace_ray.grid.scenarios.variation import spare_lines

REFERENCE = "greedy"
COUNTS: dict[Family, dict[str, int]] = {
    "attack": {"train": 2000, "validation": 600, "test": 1000},
    "load-rise": {"train": 600, "validation": 300, "test": 500},
}
LOADING = 5  # lines that one is drawn among in a load rise
SPARE = 1.1  # warm-ups played for each drill wanted, since not all are survived
_FIRST_SEED = {"train": 50_000, "validation": 60_000, "test": 70_000}  # apart from those of scenario sets


def make_banks(
    folder: Path,
    family: str,
    splits: Sequence[str],
    settings: GridSettings,
    options: DrillSettings,
    *,
    count: int | None,
    seed: int,
    processes: int,
    say: Callable[[str], None],
) -> None:
    """Writes `FAMILY-SPLIT.parquet` for each split.

    Args:
        folder: made where missing.
        count: drills of each; None: those of the banks of this package.
        say: gets one line a bank. The rest as `make_bank`.

    Raises:
        AceError: no such family, or as `make_bank`; banks made until then are kept.
    """
    known = next((one for one in FAMILIES if one == family), None)
    if known is None:
        raise ConfigError(f"there is no family of drills {family}", f"set --bank to {' or '.join(FAMILIES)}")
    for split in splits:
        wanted = count or COUNTS[known][split]
        bank = make_bank(known, split, wanted, settings, options, seed=seed, processes=processes)
        path = bank_file(folder, known, split)
        write_bank(bank, path)
        say(f"{path}: {len(bank.drills)} drills, {path.stat().st_size:,} bytes")


def make_bank(
    family: Family,
    split: str,
    count: int,
    settings: GridSettings,
    options: DrillSettings,
    *,
    seed: int,
    processes: int,
    progress: bool = True,
) -> DrillBank:
    """Draws a bank of `count` drills.

    Args:
        family: how lines are lost.
        split: whose chronics.
        count: drills wanted.
        settings: of the grid.
        options: of the drills.
        seed: the same one gives the same bank.
        processes: workers that play the warm-ups.
        progress: shows a progress bar on stderr.

    Raises:
        DataError: no chronics in the split, chronics that are too short, or no opponent whose attack could be drawn.
    """
    env = make_env(settings)
    attack = family == "attack"
    outage = internals.attack_duration(env) if attack else options.rise_outage
    rest = outage + (options.attack_after if attack else options.rise_after)
    if attack and not attackable_lines(env):
        raise DataError(f"environment '{settings.env}' has no opponent", "make a bank of load rises, or choose another")
    rng = np.random.default_rng([seed, FAMILIES.index(family), SPLITS.index(split)])
    empty = _empty_drills(family, split, outage, rest, env, options, rng)
    drawn = [next(empty) for _ in range(int(SPARE * count) + 1)]
    data = env.ace_data.id
    env.close()
    jobs = [_WarmUp(settings, drill) for drill in drawn]
    weights: list[Any] = [None] * len(jobs)
    with Pool(processes) as pool, tqdm(total=len(jobs), desc="warm-ups", unit="drill", disable=not progress) as bar:
        for index, found in pool.run(jobs):
            weights[index] = found
            bar.update()
    drills = [
        replace(drill, line=int(rng.choice(chances.size, p=chances)))
        for drill, chances in zip(drawn, weights, strict=True)
        if chances is not None
    ]
    if len(drills) < count:
        raise DataError(
            f"{REFERENCE} survives {len(drills)} of {len(drawn)} warm-ups, and {count} drills were asked for",
            "ask for fewer, or shorten drills.warm_up_most",
        )
    return DrillBank(family, settings.env, data, split, tuple(drills[:count]))


@dataclass(frozen=True)
class _WarmUp:
    """Plays the warm-up of a drill and tells the chance of each line to be lost then."""

    settings: GridSettings
    drill: Drill

    def play(self, player: Player) -> np.ndarray | None:
        """[L] chances, which sum to 1; None where greedy does not survive the warm-up."""
        env, agent = player.env(self.settings), player.agent(REFERENCE, self.settings)
        last = _Last()
        with undisturbed(env):
            played = play(env, agent, replace(self.drill.scenario, max_steps=self.drill.warm_up), self.settings, [last])
        if played.blackout:
            return None
        obs, chances = last.observation, np.zeros(env.n_line)
        if self.drill.family == "attack":
            next_attack = Opponent.from_env(env, np.array(attackable_lines(env), np.int64)).contingencies(obs, lead=0)
            chances[next_attack.lines] = next_attack.weights
        else:
            chances[_loading_most(agent.engine, obs, np.array(spare_lines(env)))] = 1.0
        total = float(chances.sum())
        return chances / total if total > 0 else None


def _loading_most(engine: DecisionEngine, obs: Any, spare: np.ndarray) -> np.ndarray:
    """The lines whose loss loads the grid most without an overload at once; only those the grid can `spare`."""
    everything = engine.settings.critical.model_copy(update={"outages": "all"})
    security = Security(engine.model, everything, [])
    worst = security.worst_now(engine.linearise(GridState.from_observation(engine.model, obs)))
    harmless = np.isin(security.lines, spare) & (worst > 0.0) & (worst < 1.0)
    lines = security.lines[harmless]
    return np.asarray(lines[np.argsort(-worst[harmless], kind="stable")][:LOADING])


class _Last:
    """Keeps the last observation (a `play.Watcher`)."""

    observation: Any = None

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        self.observation = observation

    def step(
        self, number: int, before: Any, action: Any, after: Any, reward: float, info: dict[str, Any], seconds: float
    ) -> None:
        self.observation = after


def _empty_drills(
    family: Family, split: str, outage: int, rest: int, env: Any, options: DrillSettings, rng: np.random.Generator
) -> Iterator[Drill]:
    """Endless drills whose line is still to be drawn (-1)."""
    data: DataSet = env.ace_data
    chronics = data.split[split]
    if not chronics:
        raise DataError(f"data set '{data.id}' has no {split} chronics", "choose another split or grid.data")
    if options.warm_up_least > options.warm_up_most:
        raise ConfigError(
            f"drills.warm_up_least={options.warm_up_least} is above warm_up_most={options.warm_up_most}",
            "turn them round",
        )
    begins = {chronic: _begins(family, chronic, rest, env, options) for chronic in chronics}
    number = 0
    while True:
        for index in rng.permutation(len(chronics)):
            chronic = chronics[index]
            warm_up = int(rng.integers(options.warm_up_least, options.warm_up_most + 1))
            begin = int(rng.choice(begins[chronic]))
            scenario = Scenario(
                env.ace_name, data.id, chronic, _FIRST_SEED[split] + number, begin - warm_up - 1, warm_up + rest
            )
            number += 1
            yield Drill(family, scenario, warm_up, -1, outage)


def _begins(family: Family, chronic: str, rest: int, env: Any, options: DrillSettings) -> np.ndarray:
    """Rows of a chronic in which the line may go out: there is time before and after, and it is the hour for it."""
    rows = np.arange(options.warm_up_most + 1, env.ace_data.steps(chronic) - rest + 2)
    if family == "load-rise":
        first = reset_to(env, Scenario(env.ace_name, env.ace_data.id, chronic, 0))
        midnight = first.get_time_stamp().replace(hour=0, minute=0, second=0)
        minutes = (first.get_time_stamp() - midnight) / timedelta(minutes=1) + rows * float(first.delta_time)
        hours = minutes / 60 % 24
        rows = rows[(hours >= options.rise_from) & (hours < options.rise_to)]
    if not rows.size:
        raise DataError(f"chronic '{chronic}' has no room for a drill", "leave it out, or ask for shorter drills")
    return rows
