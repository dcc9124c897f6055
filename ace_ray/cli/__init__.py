"""`ace`: one command a verb, each a few lines that call a room."""

from ace_ray.cli.main import main

__all__ = ["main"]
