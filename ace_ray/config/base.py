"""The base of all settings: unknown keys are refused, values are checked on assignment."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen settings; `extra="forbid"` turns a misspelt key into an error instead of a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
