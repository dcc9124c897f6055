"""Settings of the grid: environment, data, criticality, candidates, rules, comparison (docs/design.md)."""

from typing import Literal

from pydantic import Field

from ace_ray.config.base import Settings
from ace_ray.config.expert import ExpertSettings


class CriticalSettings(Settings):
    """Which states are critical, so that the agent decides."""

    predicate: Literal["overloaded", "insecure", "both"] = Field(
        "both",
        description="which states are critical: highest rho too high, worst rho after a contingency "
        "too high, or either",
    )
    rho_overloaded: float = Field(0.95, gt=0, description="highest rho at or above which a state is overloaded")
    rho_insecure: float = Field(1.05, gt=0, description="worst rho after a contingency above which a state is insecure")
    insecure_every: int = Field(4, ge=1, description="environment steps between two checks for insecurity")
    outages: Literal["opponent", "all"] = Field(
        "opponent", description="credible contingencies: the lines that the opponent may attack, or every line"
    )
    insecure_gain: float = Field(
        0.02,
        ge=0,
        description="in an insecure state, do-nothing wins unless an action lowers the worst rho "
        "after a contingency by this much",
    )


class CandidateSettings(Settings):
    """The K slots that the agent chooses from."""

    slots: int = Field(64, ge=2, description="number of slots K, do-nothing included")
    shortlist: int = Field(96, ge=1, description="best actions of the screen that get an exact AC check")
    substation_share: float = Field(0.5, gt=0, le=1, description="largest share of slots on one substation")
    exploratory: int = Field(4, ge=0, description="slots filled at random from the screen's better half")
    memory: int = Field(8, ge=0, description="slots filled from the proposal memory")


class RuleSettings(Settings):
    """What is played in uncritical states."""

    reconnect: bool = Field(True, description="reconnect a line when simulate shows that it is safe")
    revert: bool = Field(True, description="return to the reference topology while the grid is calm")
    revert_every: int = Field(4, ge=1, description="environment steps between two attempts to revert a substation")
    rho_revert: float = Field(0.9, gt=0, description="highest simulated rho below which a revert is allowed")


class RewardSettings(Settings):
    """Step reward and discount (docs/method.md, eq. 13)."""

    offset: float = Field(0.9, description="subtracted from load/production at each step")
    blackout: float = Field(-1.0, description="reward of the step that ends in a blackout")
    gamma: float = Field(0.995, gt=0, le=1, description="discount of one environment step; gamma**k over k steps")


class CompareSettings(Settings):
    """The comparison of two actions from one rebuilt state (docs/design.md)."""

    horizon: int = Field(100, ge=1, description="environment steps followed after the compared action")
    tie: float = Field(0.01, ge=0, description="returns closer than this share of the horizon's reward are a tie")
    first: int = Field(12, ge=1, description="best slots by score that join do-nothing and the played action in C")


class TrainingScenarioSettings(Settings):
    """What training adds to its chronics. A set of scenarios says the same in its text (docs/scenarios.md)."""

    maintenance: float = Field(
        0.0, ge=0, le=1, description="chance that a working day has a line in maintenance, where the chronic plans none"
    )
    perturbation: float = Field(
        0.0, ge=0, le=1, description="standard deviation of the relative, smooth change of loads, wind and sun"
    )


class GridSettings(Settings):
    """One environment, its data, and how decisions are made on it."""

    env: str = Field("l2rpn_neurips_2020_track1", description="Grid2Op environment name")
    data: str | None = Field(
        None,
        description="folder of chronics; empty: the weeks packaged with ace for the 36-substation grid, "
        "'shipped': the chronics inside the grid2op package",
    )
    cache_mb: int = Field(256, ge=16, description="parsed chronics kept in memory, in MB per process")
    training: TrainingScenarioSettings = TrainingScenarioSettings()
    critical: CriticalSettings = CriticalSettings()
    candidates: CandidateSettings = CandidateSettings()
    rules: RuleSettings = RuleSettings()
    reward: RewardSettings = RewardSettings()
    compare: CompareSettings = CompareSettings()
    expert: ExpertSettings = ExpertSettings()
