"""Where a run differs from the values that the ACE paper publishes (the profile `ace_paper`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ace_ray.config.load import dotted, load_settings, profile_keys
from ace_ray.config.paths import PROFILES
from ace_ray.config.run import RunSettings

PAPER_PROFILE = PROFILES / "ace_paper.yaml"


@dataclass(frozen=True)
class Difference:
    """One setting that is not as published."""

    key: str
    here: Any
    paper: Any

    def __str__(self) -> str:
        return f"{self.key} = {self.here} (paper: {self.paper})"


def differences(settings: RunSettings, profile: Path = PAPER_PROFILE) -> list[Difference]:
    """Return the settings in which `settings` differs from the paper's profile, in the profile's order."""
    published = load_settings([profile])
    return [
        Difference(key, dotted(settings, key), dotted(published, key))
        for key in profile_keys(profile)
        if dotted(settings, key) != dotted(published, key)
    ]


def differences_text(settings: RunSettings) -> str:
    """Return the differences as lines to print at the start of a run."""
    found = differences(settings)
    if not found:
        return "settings: as published in the ACE paper"
    return "\n".join(["settings that differ from the ACE paper's:", *(f"  {item}" for item in found)])
