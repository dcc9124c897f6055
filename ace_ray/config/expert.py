"""Settings of the agent `expert`, tuned on validation chronics (docs/expert.md)."""

from pydantic import Field

from ace_ray.config.base import Settings


class ExpertSettings(Settings):
    """The agent that prevents and plans without learning."""

    rho_overloaded: float = Field(0.95, gt=0, description="highest rho at or above which the grid is relieved")
    rho_room: float = Field(0.93, gt=0, description="highest rho that a preventive move may lead to")
    rho_revert: float = Field(0.9, gt=0, description="highest rho below which a move back to the reference is allowed")
    soft_rho: float = Field(0.97, gt=0, description="rho above which a line counts as overloaded after a contingency")
    half_stress: float = Field(
        0.7, gt=0, description="overload sum after a contingency (rho above soft_rho) that costs half a blackout"
    )
    island_cost: float = Field(
        1.5, gt=0, description="cost of a contingency that splits the grid in two; a blackout costs 1"
    )
    risk: float = Field(
        0.01, ge=0, description="weighted risk of the next contingency above which prevention is considered"
    )
    gain: float = Field(0.005, ge=0, description="least risk that a preventive move must remove")
    share: float = Field(0.02, ge=0, description="least share of the present risk that it must remove")
    lead: int = Field(
        20, ge=0, description="environment steps before the next possible attack at which prevention begins"
    )
    pause: int = Field(2, ge=0, description="environment steps without prevention after none was found")
    exact: int = Field(8, ge=2, description="best preventive moves whose contingencies are checked by AC power flow")
    width: int = Field(3, ge=1, description="preventive first moves that are followed by a second one")
    revert_every: int = Field(4, ge=1, description="environment steps between two attempts to revert a substation")
    revert_risk: float = Field(0.003, ge=0, description="risk that a move back to the reference may add")
    plan_depth: int = Field(3, ge=1, description="moves of a plan against an overload that no single move relieves")
    plan_first: int = Field(12, ge=1, description="first moves that plans start from")
    plan_width: int = Field(8, ge=1, description="plans kept at each further move")
    plan_list: int = Field(48, ge=4, description="moves of the screen considered after each move of a plan")
    overload_list: int = Field(120, ge=1, description="moves of the screen against an overload")
    risk_list: int = Field(60, ge=1, description="moves of the screen against a contingency")
    second_list: int = Field(24, ge=1, description="the same for the second of two preventive moves")
    switch_list: int = Field(12, ge=1, description="line switches considered against contingencies")
    outages_apart: int = Field(2, ge=0, description="riskiest contingencies that the screen ranks for individually")
