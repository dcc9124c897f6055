"""`ace bench drills`: agents in the same drills, compared drill by drill with a reference.

The reference may be an agent, which is played as well, or the rows of an earlier run of the same drills.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ace_ray.agents import registry
from ace_ray.config.errors import ConfigError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.drill_report import DrillReport
from ace_ray.evaluation.drills import DrillRow, identity, label, play_drills, read_rows
from ace_ray.grid.scenarios.data import data_id
from ace_ray.grid.scenarios.drill_banks import DrillBank, read_bank, shipped_bank
from ace_ray.grid.scenarios.drills import Drill
from ace_ray.grid.scenarios.environment import data_set


def with_reference(agents: Sequence[str], reference: str) -> list[str]:
    """The agents to play: the reference comes first, unless it is a file of rows."""
    if reference.endswith(".parquet"):
        return list(agents)
    return [reference, *(agent for agent in agents if agent != reference)]


def bench_drills(
    agents: Sequence[str],
    settings: Sequence[GridSettings],
    *,
    reference: str,
    bank: str,
    split: str,
    limit: int | None,
    lines: Sequence[int],
    processes: int,
    progress: bool = True,
) -> DrillReport:
    """Plays the drills of a bank.

    Args:
        agents: see `ace_ray.agents.registry.make`; the reference need not be among them.
        settings: of the grid, one an agent.
        reference: one of the agents, or the Parquet file of an earlier run, whose only agent it is.
        bank: family of a bank that ships with this package, or the file of one.
        split: of a bank that ships with this package.
        limit: number of drills, the first ones of the bank; None: all.
        lines: taken in turn in place of the lines of the bank; none: those of the bank.
        processes: workers.
        progress: shows a progress bar on stderr.

    Raises:
        AceError: unknown agent, bank or reference, or a bank of another environment: all before a drill is played.
    """
    for agent in agents:
        registry.check(agent)
    names = [label(agent, grid) for agent, grid in zip(agents, settings, strict=True)]
    found = open_bank(bank, split, settings[0])
    drills = found.taken(limit, lines)
    if not drills:
        raise ConfigError("there is no drill to play", "raise --limit")
    earlier = _earlier(Path(reference), drills, names) if reference not in agents else {}
    played = earlier | play_drills(agents, settings, drills, processes=processes, progress=progress)
    first = next(iter(earlier), None) or names[list(agents).index(reference)]
    named = f"lines {', '.join(map(str, lines))} in turn" if lines else "lines of the bank"
    return DrillReport(f"{found.family}, {found.split}, {named}", first, played)


def open_bank(bank: str, split: str, settings: GridSettings) -> DrillBank:
    """The bank that `--bank` and `--split` name, on the data of the settings.

    Raises:
        AceError: there is none, it is of another environment, or a chronic is missing or too short.
    """
    path = Path(bank) if bank.endswith(".parquet") else shipped_bank(bank, split)
    found = read_bank(path, data_id(settings.env, settings.data))
    if found.env != settings.env:
        raise ConfigError(
            f"the bank {path.name} is of {found.env}, and drills would be played on {settings.env}",
            "set grid.env to the bank's, or make a bank for this environment: ace bench drills --make-bank",
        )
    data = data_set(settings)
    ends: dict[str, int] = {}
    for drill in found.drills:
        one = drill.scenario
        ends[one.chronic] = max(ends.get(one.chronic, 0), one.start_step + (one.max_steps or 0))
    if short := [chronic for chronic, end in sorted(ends.items()) if data.steps(chronic) < end]:
        raise DataError(
            f"drills of {path.name} go on after the end of chronic {short[0]} in {data.path}",
            "set grid.data to what the bank was made from, or make a bank: ace bench drills --make-bank",
        )
    return found


def _earlier(path: Path, drills: Sequence[Drill], agents: Sequence[str]) -> dict[str, tuple[DrillRow, ...]]:
    """The rows of an earlier run for these drills, under the agent's name."""
    if not path.is_file():
        raise ConfigError(f"the reference {path} is no file of an earlier run", "name an agent, or a file of --output")
    rows = read_rows(path)
    names = sorted({row.agent for row in rows})
    if len(names) != 1:
        raise DataError(f"{path} holds {len(names)} agents, and a reference is one", "name a file of one agent")
    by_drill = {row.drill: row for row in rows}
    keys = [tuple(identity(drill).values()) for drill in drills]
    if missing := sum(key not in by_drill for key in keys):
        raise DataError(
            f"{path} lacks {missing} of the {len(keys)} drills", "play the reference on the same bank, lines and limit"
        )
    name = names[0] if names[0] not in agents else f"{names[0]} (earlier)"
    return {name: tuple(by_drill[key] for key in keys)}
