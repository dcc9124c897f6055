"""Features of slots and of the state, float32 in ranges that float16 holds; each has a name.

Rho is clipped to [0, 5] (5: no power flow solution, or an island), counts are scaled to stay near [0, 1].
"""

import numpy as np
from numpy.typing import NDArray

from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.catalogue import LINE, NOOP, SUBSTATION, Catalogue
from ace_ray.grid.physics.kernels import ISLAND
from ace_ray.grid.physics.model import FloatArray, GridModel, IntArray

_SCALARS = (
    "max rho after",
    "worst rho after outage",
    "score",
    "gain in score over do-nothing",
    "change of max rho",
    "change of worst rho after outage",
    "lines above limit /10",
    "lines above 0.95 /10",
    "sum of rho above limit",
    "change on the most loaded line",
    "elements moved /10",
    "distance from reference /20",
    "lines out after /5",
    "is do-nothing",
    "is disconnection",
    "is reconnection",
    "is substation action",
    "brings the substation to one bus",
    "substation position",
    "holds an end of the most loaded line",
    "cannot be used",
)
_TOTALS = (
    "max rho",
    "worst rho after outage",
    "overloaded",
    "sin hour",
    "cos hour",
    "sin weekday",
    "cos weekday",
    "load / capacity",
    "production / capacity",
    "renewable production / capacity",
    "losses / load",
    "lines out /5",
    "split substations /5",
    "elements on bus 2 /20",
)
_SOON = 24.0  # steps: how far ahead maintenance is shown


def slot_feature_names(model: GridModel, outages: IntArray) -> list[str]:
    """Names of the F slot features."""
    lines = [f"rho of line {line} after" for line in range(model.n_line)]
    return [*lines, *(f"worst rho after losing line {line}" for line in outages), *_SCALARS]


def context_feature_names(model: GridModel, outages: IntArray) -> list[str]:
    """Names of the C state features."""
    per_line = ("rho", "in service", "steps above limit /4", "cooldown /12", "maintenance soon")
    names = [f"{what} of line {line}" for what in per_line for line in range(model.n_line)]
    names += [f"worst rho after losing line {line}" for line in outages]
    names += [f"{what} of substation {s}" for what in ("split", "cooldown /3") for s in range(model.n_sub)]
    return [*names, *_TOTALS]


def context_features(
    model: GridModel,
    obs: GridObservation,
    worst: FloatArray,
    overloaded: bool,
    renewable: NDArray[np.bool_],
    capacity: float,
) -> NDArray[np.float32]:
    """State features float32 [C].

    Args:
        obs: Observation.  worst: [O] worst rho after each outage now.  overloaded: kind of the state.
        renewable: [G] renewable generators.  capacity: sum of the generators' largest productions in MW.
    """
    on_second = obs.topo_vect == 2
    split = np.bincount(model.pos_sub[on_second], minlength=model.n_sub) > 0
    maintenance = obs.time_next_maintenance
    soon = np.where(maintenance >= 0, np.maximum(0.0, 1.0 - maintenance / _SOON), 0.0)
    hour = 2 * np.pi * (obs.hour_of_day + obs.minute_of_hour / 60.0) / 24.0
    day = 2 * np.pi * obs.day_of_week / 7.0
    load, production = float(obs.load_p.sum()), float(obs.gen_p.sum())
    totals = (
        obs.rho.max(initial=0.0),
        worst.max(initial=0.0),
        float(overloaded),
        np.sin(hour),
        np.cos(hour),
        np.sin(day),
        np.cos(day),
        load / capacity,
        production / capacity,
        float(obs.gen_p[renewable].sum()) / capacity,
        (production - load) / max(load, 1.0),
        float((~obs.line_status).sum()) / 5.0,
        float(split.sum()) / 5.0,
        float(on_second.sum()) / 20.0,
    )
    parts = (
        np.clip(obs.rho, 0.0, ISLAND),
        obs.line_status,
        np.clip(obs.timestep_overflow, 0, 12) / 4.0,
        np.clip(obs.time_before_cooldown_line, 0, 60) / 12.0,
        soon,
        np.clip(worst, 0.0, ISLAND),
        split,
        np.clip(obs.time_before_cooldown_sub, 0, 30) / 3.0,
        np.clip(totals, -ISLAND, ISLAND),
    )
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


def slot_features(
    model: GridModel,
    catalogue: Catalogue,
    ids: NDArray,
    after: IntArray,
    moved: IntArray,
    rho: FloatArray,
    outage: FloatArray,
    score: FloatArray,
    usable: NDArray[np.bool_],
    rho_now: FloatArray,
) -> NDArray[np.float32]:
    """Slot features float32 [n, F]; row 0 must be do-nothing.

    Args:
        ids: [n] catalogue ids.  after: [n, T] topologies.  moved: [n] elements moved.
        rho: [n, L] after the action.  outage: [n, O] worst after each outage.  score: [n].
        usable: [n] whether the grid survives the action.  rho_now: [L] as measured.
    """
    kind = catalogue.kind[ids]
    worst_line = int(rho_now.argmax())
    ends = np.array([model.line_or_sub[worst_line], model.line_ex_sub[worst_line]])
    substation = catalogue.substation[ids].astype(np.int64)
    column = (np.asarray(ids) - 1) % 5
    top, worst = rho.max(axis=1, initial=0.0), outage.max(axis=1, initial=0.0)
    lines_out = (after[:, model.line_or_pos] < 0).sum(axis=1)
    own = model.pos_sub == substation[:, None]  # [n, T]
    single = (substation >= 0) & ~((own & (after == 1)).any(axis=1) & (own & (after == 2)).any(axis=1))
    scalars = np.stack(
        [
            top,
            worst,
            score,
            score - score[0],
            top - top[0],
            worst - worst[0],
            (rho > 1.0).sum(axis=1) / 10.0,
            (rho > 0.95).sum(axis=1) / 10.0,
            np.maximum(rho - 1.0, 0.0).sum(axis=1),
            rho[:, worst_line] - rho[0, worst_line],
            moved / 10.0,
            ((after == 2).sum(axis=1) + lines_out) / 20.0,
            lines_out / 5.0,
            kind == NOOP,
            (kind == LINE) & (column == 0),
            (kind == LINE) & (column > 0),
            kind == SUBSTATION,
            single,
            np.where(substation >= 0, (substation + 1) / model.n_sub, 0.0),
            np.isin(substation, ends),
            ~usable,
        ],
        axis=1,
    )
    parts = (np.clip(rho, 0.0, ISLAND), np.clip(outage, 0.0, ISLAND), np.clip(scalars, -10, 10))
    return np.concatenate(parts, axis=1).astype(np.float32)
