"""Settings of drills: what `ace bench drills --make-bank` draws (docs/drills.md)."""

from pydantic import Field

from ace_ray.config.base import Settings


class DrillSettings(Settings):
    """Drills that a new bank is made of; a bank that is there keeps its own. Steps are environment steps."""

    warm_up_least: int = Field(24, ge=1, description="steps that the agent plays before the line is lost, at least")
    warm_up_most: int = Field(48, ge=1, description="the same, at most")
    attack_after: int = Field(48, ge=0, description="attack: steps after it, in which the line may be brought back")
    rise_from: float = Field(4.0, ge=0, lt=24, description="load rise: earliest hour at which the line goes out")
    rise_to: float = Field(5.5, gt=0, le=24, description="load rise: hour before which it does")
    rise_outage: int = Field(96, ge=1, description="load rise: steps that the line is out")
    rise_after: int = Field(24, ge=0, description="load rise: steps after it, in which the line may be brought back")
