"""What this project reads of Grid2Op's observation, and nothing else: a change of Grid2Op shows here first."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray


@runtime_checkable
class GridObservation(Protocol):
    """A complete Grid2Op observation (`grid2op.Observation.CompleteObservation`).

    Sizes: n lines, g generators, l loads, s substations, b storage units, e elements (line ends, generators, loads,
    storage units) in the order of the topology vector. Steps are environment steps.
    """

    # What the grid is.
    line_or_to_subid: NDArray  # [n] substation of each line's origin
    line_ex_to_subid: NDArray  # [n] and of its extremity
    line_or_pos_topo_vect: NDArray  # [n] place of each origin in the topology vector
    line_ex_pos_topo_vect: NDArray  # [n] and of each extremity
    grid_objects_types: NDArray  # [e, 6] substation and object of each element, -1 where it is no such object

    # When.
    current_step: int  # steps since the environment's reset
    month: int
    day: int
    day_of_week: int  # 0 is Monday
    hour_of_day: int
    minute_of_hour: int

    # Topology, and what may be done with it.
    topo_vect: NDArray  # [e] bus of each element within its substation: 1, 2, or -1 where it is out of service
    line_status: NDArray  # [n] in service
    time_before_cooldown_line: NDArray  # [n] steps until the line may be switched
    time_before_cooldown_sub: NDArray  # [s] steps until the substation may be changed
    time_next_maintenance: NDArray  # [n] steps until the next planned maintenance, -1 without one
    duration_next_maintenance: NDArray  # [n] its length in steps
    time_since_last_attack: NDArray  # [lines with alerts] steps, -1 where never attacked

    # Power.
    rho: NDArray  # [n] current over thermal limit
    timestep_overflow: NDArray  # [n] steps above the limit so far
    p_or: NDArray  # [n] MW into each line at its origin
    p_ex: NDArray  # [n] MW at its extremity
    q_or: NDArray  # [n] MVAr
    v_or: NDArray  # [n] kV
    v_ex: NDArray  # [n] kV
    load_p: NDArray  # [l] MW
    load_q: NDArray  # [l] MVAr
    gen_p: NDArray  # [g] MW
    gen_v: NDArray  # [g] kV

    # Dispatch and storage.
    target_dispatch: NDArray  # [g] MW
    actual_dispatch: NDArray  # [g] MW
    curtailment_limit: NDArray  # [g] share of pmax
    storage_charge: NDArray  # [b] MWh
    storage_power: NDArray  # [b] MW

    # Forecasts.
    action_helper: Any  # the action space

    def get_forecast_arrays(self) -> tuple[NDArray, ...]:
        """Forecast load_p, load_q, prod_p, prod_v and maintenance, [steps, l or g] each."""
        ...

    def simulate(self, action: Any, time_step: int = 1) -> tuple[Any, float, bool, dict[str, Any]]:
        """Plays an action against the forecast."""
        ...

    def copy(self) -> Any:
        """A copy that later steps do not change."""
        ...
