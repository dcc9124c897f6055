"""Sets of scenarios: what evaluation names by a word, and what training draws from.

Grammar (parts joined by `;`)::

    train:N | validation:N | test:N          N scenarios of a split; whole chronics, seeds that vary with the chronic
    chronics=0,1;seeds=0-3                   chronics (sorted names: by index, range or name, or all) x seeds
    chronics=all;seeds=500+                  the i-th of these chronics with seed 500 + i
    chronics="2","a,b";seeds=0               names in double quotes: with , or ; in them, or where a name is a number
    ...;steps=864                            cap of each episode's length
    ...;start=288                            first row of each episode
    ...;maintenance=0.5                      half of the working days have a line in maintenance, where none is planned
    ...;perturbation=0.05                    loads, wind and sun changed smoothly by 5 % (standard deviation)

One environment seed makes the same attack schedule on every chronic, so sets vary the seed with the chronic. Seeds
of the three named splits and of training never meet.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ace_ray.config.errors import AceError, ConfigError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.data import SPLITS, DataSet
from ace_ray.grid.scenarios.environment import data_set, is_random
from ace_ray.grid.scenarios.scenario import Scenario

_FIRST_SEED = {"train": 10_000, "validation": 20_000, "test": 30_000}
_TRAINING_SEEDS = (100_000, 2**31 - 1)
_SEEDS = 10_000  # of each named split: so many scenarios can it have
_LAST_SEED = 2**31 - 1  # that Grid2Op takes
_MOST = 100_000  # scenarios of a set
_SHARES = {"train": 3, "validation": 1, "test": 1}  # of a chronic that splits have to share
_VARIATIONS = ("maintenance", "perturbation")
_SHORTEST = 288  # steps (a day) that a training episode can last at least, where its chronic allows
_GRAMMAR = "use train:N, validation:N, test:N, or chronics=LIST;seeds=LIST (see docs/scenarios.md)"


@dataclass(frozen=True)
class ScenarioSet:
    """Scenarios of one split.

    Attributes:
        scenarios: In the order in which they are reported.
        split: `train`, `validation`, `test`, or `custom` where chronics of several splits are mixed.
        in_sample: Training sees these injections (another environment seed or start step is all that differs).
    """

    scenarios: tuple[Scenario, ...]
    split: str
    in_sample: bool


def parse(text: str, settings: GridSettings) -> ScenarioSet:
    """Read a set of scenarios (grammar in the module docstring).

    Raises:
        ConfigError: The text is not of the grammar.
        DataError: A chronic that is not there, or a split without chronics.
    """
    data = data_set(settings)
    head, options = _options(text)
    maintenance, perturbation = (_fraction(options.get(name, "0"), name) for name in _VARIATIONS)
    if head:
        scenarios = _of_split(head, settings, data, is_random(settings) or maintenance + perturbation > 0)
    elif "chronics" in options and "seeds" in options:
        scenarios = _crossed(options["chronics"], options["seeds"], settings, data)
    else:
        raise ConfigError(f"scenario set '{text}' cannot be read", _GRAMMAR)
    steps = _whole(options["steps"], "steps", least=1) if "steps" in options else None
    if steps is not None:
        scenarios = [replace(s, max_steps=steps if s.max_steps is None else min(steps, s.max_steps)) for s in scenarios]
    if "start" in options:
        scenarios = [replace(s, start_step=_start(options["start"], s.chronic, data)) for s in scenarios]
    scenarios = [replace(s, maintenance=maintenance, perturbation=perturbation) for s in scenarios]
    chronics = {s.chronic for s in scenarios}
    holders = [key for key in SPLITS if chronics <= set(data.split[key])]
    split = head.partition(":")[0] if head else (holders[0] if holders else "custom")
    return ScenarioSet(tuple(scenarios), split, split == "train" or data.in_sample(chronics))


def training_scenarios(settings: GridSettings, seed: int) -> Iterator[Scenario]:
    """Endless scenarios over the training chronics, each with its own environment seed and start step.

    A chronic whose rows cannot be counted comes up as a whole: whoever resets to it is told why it cannot be played.
    """
    data = data_set(settings)
    chronics = data.split["train"]
    if not chronics:
        raise DataError(f"data set '{data.id}' has no training chronics", "set grid.data to one that has")
    rng = np.random.default_rng(seed)
    while True:
        for index in rng.permutation(len(chronics)):
            chronic = chronics[index]
            try:
                first, end, whole = _window("train", chronic, data)
            except DataError:  # raised here it would end the scenarios of all other chronics too
                first, end, whole = 0, 0, True
            latest = max(first, end - _SHORTEST)
            start = int(rng.integers(first, latest + 1))
            cap = None if whole else end - start
            env_seed = int(rng.integers(*_TRAINING_SEEDS))
            varied = (settings.training.maintenance, settings.training.perturbation)
            yield Scenario(settings.env, data.id, chronic, env_seed, start, cap, *varied)


def _options(text: str) -> tuple[str, dict[str, str]]:
    head, options = "", {}
    for part in filter(None, (p.strip() for p in _parts(text, ";"))):
        name, given, value = part.partition("=")
        if name.strip() in options:
            raise ConfigError(f"scenario set '{text}' says {name.strip()} twice", _GRAMMAR)
        if given and name.strip() in ("chronics", "seeds", "steps", "start", *_VARIATIONS):
            options[name.strip()] = value.strip()
        elif not given and ":" in part and not head:
            head = part
        else:
            raise ConfigError(f"scenario set '{text}': '{part}' cannot be read", _GRAMMAR)
    if head and ("chronics" in options or "seeds" in options):
        raise ConfigError(f"scenario set '{text}' names a split and chronics or seeds", _GRAMMAR)
    return head, options


def _of_split(head: str, settings: GridSettings, data: DataSet, varied: bool) -> list[Scenario]:
    split, _, number = head.partition(":")
    if split not in SPLITS:
        raise ConfigError(f"there is no split '{split}'", _GRAMMAR)
    chronics, count = data.split[split], _whole(number, split, least=1, most=_SEEDS)
    if not chronics:
        raise DataError(f"data set '{data.id}' has no {split} chronics", "choose another split or grid.data")
    rounds = -(-count // len(chronics))
    scenarios = []
    for i in range(count):
        chronic, turn = chronics[i % len(chronics)], i // len(chronics)
        first, end, whole = _window(split, chronic, data)
        # where nothing is drawn from the seed, a second turn on a chronic must start elsewhere to differ
        start = first if varied else first + turn * (end - first) // (2 * rounds)
        cap = None if whole else end - start
        scenarios.append(Scenario(settings.env, data.id, chronic, _FIRST_SEED[split] + i, start, cap))
    return scenarios


def _window(split: str, chronic: str, data: DataSet) -> tuple[int, int, bool]:
    """First step, end and whether that is all of the chronic: splits that share one get disjoint windows of it."""
    sharing = [key for key in SPLITS if chronic in data.split[key]]
    steps = data.steps(chronic)
    if len(sharing) == 1:
        return 0, steps, True
    total, before = sum(_SHARES[key] for key in sharing), 0
    for key in sharing:
        if key == split:
            break
        before += _SHARES[key]
    first, end = before * steps // total, (before + _SHARES[split]) * steps // total
    return first, end, False


def _crossed(chronics: str, seeds: str, settings: GridSettings, data: DataSet) -> list[Scenario]:
    names = _chronics(chronics, data)
    if seeds.endswith("+"):
        base = _whole(seeds[:-1], "seeds", most=_LAST_SEED - len(names) + 1)
        pairs = [(name, base + i) for i, name in enumerate(names)]
    else:
        numbers = _numbers(seeds, "seeds", most=_LAST_SEED)
        if len(names) * len(numbers) > _MOST:
            raise ConfigError(
                f"{len(names)} chronics with {len(numbers)} seeds each are more than {_MOST}", "ask for less"
            )
        pairs = [(name, seed) for name in names for seed in numbers]
    return [Scenario(settings.env, data.id, name, seed) for name, seed in pairs]


def _chronics(text: str, data: DataSet) -> list[str]:
    """Names of the chronics that a list of indices, ranges and names means; a name in double quotes is a name alone."""
    if text == "all":
        return list(data.chronics)
    names: list[str] = []
    for part in (p.strip() for p in _parts(text, ",")):
        quoted = len(part) > 1 and part[0] == part[-1] == '"'
        name = part[1:-1] if quoted else part
        named = [name] if name in data.chronics else []
        if quoted and not named:
            raise DataError(
                f"chronic {part} is not in data set '{data.id}'", f"choose names such as {data.chronics[0]}"
            )
        counted = _counted(name, data, refuse=not named) if not quoted else []
        meant = [str(i) for i in _numbers(name, "chronics", _MOST)] if counted else []
        if counted and counted != meant and (named or not set(meant).isdisjoint(data.chronics)):
            written = " or ".join(f'"{one}"' for one in (*named, *counted)[:2])
            raise ConfigError(
                f"chronics={part} may be a name or an index: chronics of data set '{data.id}' are called by numbers",
                f"write the names in double quotes, such as {written}",
            )
        names += named or counted
    return names


def _counted(text: str, data: DataSet, refuse: bool) -> list[str]:
    """The chronics at an index or in a range of them; none where there are none and that is not to be refused."""
    try:
        indices = _numbers(text, "chronics", most=_MOST)
        if max(indices) >= len(data.chronics):
            raise DataError(
                f"chronic {max(indices)} is not in data set '{data.id}', which has {len(data.chronics)}",
                f"choose indices from 0 to {len(data.chronics) - 1}, or names such as {data.chronics[0]}",
            )
    except AceError:
        if refuse:
            raise
        return []
    return [data.chronics[index] for index in indices]


def _parts(text: str, separator: str) -> list[str]:
    """`text` cut at a separator, but not inside double quotes."""
    if text.count('"') % 2:
        raise ConfigError(f"scenario set: a double quote is not closed in '{text}'", _GRAMMAR)
    return re.split(separator + r'(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def _start(text: str, chronic: str, data: DataSet) -> int:
    return _whole(text, "start", most=data.steps(chronic) - 1)


def _numbers(text: str, what: str, most: int) -> list[int]:
    """`0,2,5-7` as a list."""
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]+)\s*-\s*([0-9]+)\s*", part)
        if not found:
            numbers.append(_whole(part, what, most=most))
            continue
        low, high = (_whole(end, what, most=most) for end in found.groups())
        if high < low or high - low >= _MOST:
            raise ConfigError(
                f"{what}={part.strip()} of a scenario set runs backwards or has more than {_MOST}", _GRAMMAR
            )
        numbers.extend(range(low, high + 1))
    return numbers


def _whole(text: str, what: str, least: int = 0, most: int = _LAST_SEED) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", text):
        raise ConfigError(f"'{text}' is not a whole number ({what} of a scenario set)", _GRAMMAR)
    if not least <= int(text) <= most:
        raise ConfigError(f"{what}={text.strip()} of a scenario set is not within {least} and {most}", _GRAMMAR)
    return int(text)


def _fraction(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"'{text}' is not a number from 0 to 1 ({what} of a scenario set)", _GRAMMAR)
    return value
