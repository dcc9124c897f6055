"""A policy on disk: `policy.safetensors` (weights) and `policy.json` (what they were made for). No pickle.

The card beside the weights names the environment, the catalogue's content hash and the engine spec, so a policy is
refused on a grid that numbers its actions differently instead of playing nonsense there; and it carries the proposal
memory, without which actions that a refiner found could not be played where no language model is.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as as_safetensors

from ace_ray.config.errors import AceError, GridMismatchError
from ace_ray.config.files import write, write_json
from ace_ray.config.learning import PolicySettings
from ace_ray.policy.network import SlotNetwork

WEIGHTS = "policy.safetensors"
CARD = "policy.json"
FORMAT = 1
ANOTHER = "take another checkpoint of the run"


@dataclass(frozen=True)
class PolicyCard:
    """What a policy was made for.

    Attributes:
        env: Grid2Op environment name.
        catalogue_hash: Content hash of the action catalogue whose ids the memory uses.
        spec: Engine spec as plain integers; `context_features`, `slot_features` and `slots` are required.
        settings: Widths and prior temperature of the network.
        memory: Proposal memory, catalogue ids.
        version: Learner updates behind these weights; 0 is greedy.
        decisions: Decisions collected when they were saved.
        weights_sha256: Hash of the weight file, set by `save`; empty on cards of before there was one.
    """

    env: str
    catalogue_hash: str
    spec: Mapping[str, int]
    settings: PolicySettings
    memory: tuple[int, ...] = ()
    version: int = 0
    decisions: int = 0
    format: int = field(default=FORMAT)
    weights_sha256: str = field(default="", compare=False)

    def check(self, env: str, catalogue_hash: str, spec: Mapping[str, int]) -> None:
        """Refuses another grid, catalogue or engine spec.

        Raises:
            GridMismatchError: naming the first thing that differs.
        """
        if self.env != env:
            raise GridMismatchError(f"this policy was trained on {self.env}, not on {env}", f"pass --env {self.env}")
        if self.catalogue_hash != catalogue_hash:
            raise GridMismatchError(
                f"this policy's action catalogue is {self.catalogue_hash[:12]}, "
                f"the one of {env} here is {catalogue_hash[:12]}",
                "use the grid2op version and environment files that the run used, or train again",
            )
        for key, value in self.spec.items():
            if spec.get(key) != value:
                raise GridMismatchError(
                    f"this policy expects {key}={value}, the decision engine gives {spec.get(key)}",
                    "use the grid settings of the run (grid.critical, grid.candidates in its config.yaml)",
                )


def build(card: PolicyCard) -> SlotNetwork:
    """A fresh network of the card's sizes: at iteration 0 it is greedy."""
    return SlotNetwork(card.spec["context_features"], card.spec["slot_features"], card.settings)


def save(folder: str | os.PathLike[str], weights: Mapping[str, torch.Tensor], card: PolicyCard) -> None:
    """Writes weights and card into an existing folder, each whole or not at all.

    Args:
        folder: An existing folder.
        weights: `SlotNetwork.state_dict()`.
        card: What the weights were made for.
    """
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    data = as_safetensors(tensors)
    write(folder / WEIGHTS, data)
    row = asdict(card) | {
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "settings": card.settings.model_dump(),
        "spec": dict(card.spec),
        "memory": list(card.memory),
    }
    write_json(folder / CARD, row)


def load_card(folder: str | os.PathLike[str]) -> PolicyCard:
    """Reads the card alone.

    Raises:
        AceError: No readable card in the folder, or one of a newer format.
    """
    path = Path(folder) / CARD
    try:
        row = json.loads(path.read_text())
        written, known = row["format"], {each.name for each in fields(PolicyCard)}
        if written != FORMAT or row.keys() - known:
            what = f"format {written}" if written != FORMAT else f"the field '{min(row.keys() - known)}'"
            raise AceError(f"{path} has {what}, which this version cannot read", "use the version that wrote it")
        row["settings"] = PolicySettings(**row["settings"])
        row["memory"] = tuple(int(i) for i in row["memory"])
        return PolicyCard(**row)
    except FileNotFoundError:
        raise AceError(
            f"no policy in {folder}: {CARD} is missing", "name a checkpoint or run folder of `ace train`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AceError(f"{path} cannot be read: {error!r}", ANOTHER) from error


def load(folder: str | os.PathLike[str]) -> tuple[SlotNetwork, PolicyCard]:
    """Reads a policy; call `card.check(...)` before playing it.

    Returns:
        The network in evaluation mode on the CPU, and its card.

    Raises:
        AceError: Card or weights missing, torn, not fitting each other, or weights that are not finite numbers.
    """
    card = load_card(folder)
    network = build(card)
    path = Path(folder) / WEIGHTS
    try:
        data = path.read_bytes()
        weights = load_tensors(data)
        if card.weights_sha256 and hashlib.sha256(data).hexdigest() != card.weights_sha256:
            raise AceError(f"{path} is not the file that {CARD} describes: its hash differs", ANOTHER)
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise AceError(f"{path} cannot be read: {error}", ANOTHER) from error
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise AceError(
            f"{path} has weights that are not finite, in {len(broken)} of {len(weights)} tensors ({broken[0]})",
            ANOTHER,
        )
    return network.eval(), card


def find(run: str | os.PathLike[str], version: str | int | None = None) -> Path:
    """The checkpoint folder of a run.

    Args:
        run: A run folder (with `checkpoints/`), or a checkpoint or export folder itself.
        version: Learner updates as in the folder's name (`RUN@0`, `RUN@1200`); None or 'N' for the latest.

    Raises:
        AceError: No such run or checkpoint; lists those that exist.
    """
    run = Path(run)
    if version is None and (run / CARD).is_file():
        return run
    found = {int(p.name): p for p in (run / "checkpoints").glob("*") if p.name.isdecimal() and (p / CARD).is_file()}
    if not found:
        raise AceError(f"no checkpoint under {run}", "name a run folder of `ace train` (`ace runs list` shows them)")
    if version is None or str(version) == "N":
        return found[max(found)]
    if str(version).isdecimal() and int(version) in found:
        return found[int(version)]
    there = ", ".join(str(v) for v in sorted(found))
    raise AceError(f"run {run.name} has no checkpoint {version}", f"choose one of: {there}")
