"""ACE on Ray: reinforcement learning and a language model that improve each other on power-grid topology control."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ace_ray.api import evaluate, load_agent, make, train

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load_agent", "make", "train"]


def __getattr__(name: str) -> Any:
    """The functions of `ace_ray.api`, imported when they are first used: Grid2Op, Ray and torch take seconds."""
    if name in __all__:
        return getattr(import_module("ace_ray.api"), name)
    raise AttributeError(f"module 'ace_ray' has no attribute '{name}'")
