"""A run folder with a policy that is not greedy."""

from dataclasses import asdict
from pathlib import Path

import torch

from ace_ray.config.grid import GridSettings
from ace_ray.config.learning import PolicySettings
from ace_ray.config.load import to_yaml
from ace_ray.config.run import RunSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.policy import checkpoint


def small_run(folder: Path, engine: DecisionEngine, settings: GridSettings) -> Path:
    """Writes `config.yaml` and a checkpoint: a random residual head, far from the prior, and two actions in memory."""
    at = folder / "checkpoints" / "000000"
    at.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(RunSettings(grid=settings)))
    card = checkpoint.PolicyCard(
        env=settings.env,
        catalogue_hash=engine.catalogue.hash,
        spec=asdict(engine.spec),
        settings=PolicySettings(hidden=16, heads=2, layers=1),
        memory=(301, 402),
    )
    torch.manual_seed(0)
    network = checkpoint.build(card)
    torch.nn.init.normal_(network.residual.weight, std=200.0)
    checkpoint.save(at, network.state_dict(), card)
    return folder
