"""The grid as arrays: what the linear screen and the AC check need to know about an environment.

Everything here is read once, from the environment's classes and from a copy of its LightSim grid. Nodes are numbered
`substation + n_sub * (bus - 1)`, the numbering that LightSim uses, so bus 1 of substation s is node s.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ace_ray.config.errors import GridMismatchError
from ace_ray.grid.grid2op_internals import substation_of_element
from ace_ray.grid.observation import GridObservation

IntArray = NDArray[np.signedinteger[Any]]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class GridModel:
    """Static arrays of one grid. L lines (transformers last), S substations, T = dim_topo elements, N = 2 S nodes."""

    n_sub: int
    n_line: int
    n_gen: int
    n_load: int
    n_storage: int
    dim_topo: int
    line_or_sub: IntArray  # [L]
    line_ex_sub: IntArray  # [L]
    line_or_pos: IntArray  # [L] place of the origin end in the topology vector
    line_ex_pos: IntArray  # [L]
    gen_pos: IntArray  # [G]
    load_pos: IntArray  # [D]
    storage_pos: IntArray  # [B]
    gen_sub: IntArray  # [G]
    load_sub: IntArray  # [D]
    pos_sub: IntArray  # [T] substation of an element
    pos_line: IntArray  # [T] line whose end the element is, -1 for an injection
    pos_sign: IntArray  # [T] +1 origin end, -1 extremity end, 0 injection
    susceptance: FloatArray  # [L] MW per radian, tap ratio included
    own_admittance: NDArray[np.complex128]  # [L] MVA at nominal voltage: y_11 of the line's origin, shunt included
    mutual_admittance: NDArray[np.complex128]  # [L] y_12
    mutual_back_admittance: NDArray[np.complex128]  # [L] y_21, another one where a transformer turns the phase
    far_admittance: NDArray[np.complex128]  # [L] y_22
    nominal_kv: FloatArray  # [L] nominal voltage of the line's origin
    thermal_limit: FloatArray  # [L] A
    slack_gens: IntArray  # generators that take part in the slack
    slack_sub: int  # substation of the reference generator
    slack_pos: int  # its place in the topology vector
    sub_ptr: IntArray  # [S + 1] elements of substation s: sub_elements[sub_ptr[s]:sub_ptr[s + 1]]
    sub_elements: IntArray  # [T] places in the topology vector, ascending within a substation

    @property
    def n_node(self) -> int:
        """Number of nodes, two per substation."""
        return 2 * self.n_sub

    def elements(self, substation: int) -> IntArray:
        """Places in the topology vector of a substation's elements, ascending."""
        return self.sub_elements[self.sub_ptr[substation] : self.sub_ptr[substation + 1]]

    @classmethod
    def from_env(cls, env: Any, grid: Any) -> "GridModel":
        """Read the arrays of `env`, whose LightSim grid (or a copy of it) is `grid`.

        Raises:
            GridMismatchError: More than two busbars a substation, or line numbering that differs between the two.
        """
        if getattr(env, "n_busbar_per_sub", 2) != 2:
            raise GridMismatchError(
                f"environment {env.env_name!r} has {env.n_busbar_per_sub} busbars per substation; two are supported",
                "make the environment with n_busbar=2",
            )
        branches = [*grid.get_lines(), *grid.get_trafos()]
        or_pos = env.line_or_pos_topo_vect.astype(np.int32)
        ex_pos = env.line_ex_pos_topo_vect.astype(np.int32)
        if len(branches) != env.n_line or any(
            b.pos1_topo_vect != o or b.pos2_topo_vect != x for b, o, x in zip(branches, or_pos, ex_pos, strict=True)
        ):
            raise GridMismatchError(
                f"environment {env.env_name!r} numbers its lines differently from its LightSim grid",
                "make the environment with lightsim2grid.LightSimBackend and its default loader",
            )
        # ydc_12 = -1/(x * ratio) per unit of the grid's base power
        susceptance = np.array([-b.ydc_12.real for b in branches]) * grid.get_sn_mva()
        admittances = np.array([(b.yac_11, b.yac_12, b.yac_21, b.yac_22) for b in branches], complex)
        own, mutual, back, far = (admittances * grid.get_sn_mva()).T

        pos_line = np.full(env.dim_topo, -1, np.int32)
        pos_sign = np.zeros(env.dim_topo, np.int32)
        pos_line[or_pos], pos_line[ex_pos] = np.arange(env.n_line), np.arange(env.n_line)
        pos_sign[or_pos], pos_sign[ex_pos] = 1, -1
        pos_sub = substation_of_element(env)
        order = np.argsort(pos_sub, kind="stable").astype(np.int32)
        slack = np.array([g.id for g in grid.get_generators() if g.is_slack], np.int32)
        if slack.size == 0:
            raise GridMismatchError("the LightSim grid has no slack generator", "use an environment with one")
        return cls(
            n_sub=int(env.n_sub),
            n_line=int(env.n_line),
            n_gen=int(env.n_gen),
            n_load=int(env.n_load),
            n_storage=int(env.n_storage),
            dim_topo=int(env.dim_topo),
            line_or_sub=env.line_or_to_subid.astype(np.int32),
            line_ex_sub=env.line_ex_to_subid.astype(np.int32),
            line_or_pos=or_pos,
            line_ex_pos=ex_pos,
            gen_pos=env.gen_pos_topo_vect.astype(np.int32),
            load_pos=env.load_pos_topo_vect.astype(np.int32),
            storage_pos=env.storage_pos_topo_vect.astype(np.int32),
            gen_sub=env.gen_to_subid.astype(np.int32),
            load_sub=env.load_to_subid.astype(np.int32),
            pos_sub=pos_sub,
            pos_line=pos_line,
            pos_sign=pos_sign,
            susceptance=susceptance,
            own_admittance=own,
            mutual_admittance=mutual,
            mutual_back_admittance=back,
            far_admittance=far,
            nominal_kv=np.asarray(grid.get_bus_vn_kv(), np.float64)[env.line_or_to_subid],
            thermal_limit=np.asarray(env.get_thermal_limit(), np.float64),
            slack_gens=slack,
            slack_sub=int(env.gen_to_subid[slack[0]]),
            slack_pos=int(env.gen_pos_topo_vect[slack[0]]),
            sub_ptr=np.searchsorted(pos_sub[order], np.arange(env.n_sub + 1)).astype(np.int32),
            sub_elements=order,
        )


@dataclass(frozen=True)
class GridState:
    """The electrical state that a decision starts from: read from an observation or from a power flow.

    Powers in MW and MVAr leave the node at the named end; voltages in kV, limits in A. A line out of service has
    zeros, and -1 in the topology vector.
    """

    topo: IntArray  # [T]
    injection: FloatArray  # [T] MW put into the grid by generators (+), loads and storage (-); 0 for line ends
    p_or: FloatArray  # [L]
    q_or: FloatArray  # [L]
    p_ex: FloatArray  # [L]
    v_or: FloatArray  # [L]
    v_ex: FloatArray  # [L]
    rho: FloatArray  # [L] current over limit, measured at the origin end
    limit: FloatArray  # [L]

    @classmethod
    def from_observation(cls, model: GridModel, obs: GridObservation) -> "GridState":
        """State of a complete observation."""
        injection = np.zeros(model.dim_topo)
        injection[model.gen_pos] = obs.gen_p
        injection[model.load_pos] = -obs.load_p
        if model.n_storage:
            injection[model.storage_pos] = -obs.storage_power
        return cls(
            topo=obs.topo_vect.astype(np.int32),
            injection=injection,
            p_or=obs.p_or.astype(np.float64),
            q_or=obs.q_or.astype(np.float64),
            p_ex=obs.p_ex.astype(np.float64),
            v_or=obs.v_or.astype(np.float64),
            v_ex=obs.v_ex.astype(np.float64),
            rho=obs.rho.astype(np.float64),
            limit=limits_of(model, obs),
        )


def limits_of(model: GridModel, obs: GridObservation) -> FloatArray:
    """Thermal limits in A that hold for this observation; the environment's where it carries none."""
    limit = getattr(obs, "thermal_limit", None)
    return model.thermal_limit if limit is None else np.asarray(limit, np.float64)
