"""Settings of refinement: refiners, actor, critic, fine-tuning (docs/method.md)."""

from typing import Literal

from pydantic import Field

from ace_ray.config.base import Settings


class RefineSettings(Settings):
    """Which decisions are thought over twice, and by whom."""

    refiner: Literal["llm", "search", "random", "off"] = Field("llm", description="who proposes the better action")
    refiners: int = Field(1, ge=0, description="refiner processes")
    trigger: Literal["lookback", "paper"] = Field("lookback", description="walk back from blackouts, or r < r_low")
    lookback: int = Field(8, ge=1, description="decisions looked at before a blackout")
    r_low: float = Field(0.0, description="reward under which trigger=paper asks (ACE's best: 0)")
    rounds: int = Field(5, ge=1, description="rounds with feedback before a refinement is given up (ACE: 5)")
    proposals: int = Field(
        5, ge=1, description="replays a search or random refinement may spend; equal to rounds in paired comparisons"
    )
    queue: int = Field(256, ge=1, description="pending refinements kept; the oldest of lowest value goes first")
    seed_queue: bool = Field(False, description="fill the queue with the salvageable snapshots shipped with the model")
    advantage_share: float = Field(
        0.25, ge=0, le=1, description="share of requests for lowest-advantage decisions while no blackout is pending"
    )


class CriticSettings(Settings):
    """Bounded edits of key steps (docs/method.md, eq. 5)."""

    source: Literal["llm", "random", "off"] = Field(
        "llm",
        description="who edits rewards once D_LLM is full: the model; random: the model's edits, on key steps drawn at "
        "random (for comparison); off: nobody",
    )
    key_steps: Literal["lookback", "rho", "reward"] = Field(
        "lookback", description="key steps by look-back from a blackout, by change of max rho, or by |reward| (ACE)"
    )
    lookback: int = Field(10, ge=1, description="last decisions before a blackout that are key (key_steps=lookback)")
    r_high: float = Field(0.1, description="|reward| from which a step is key (key_steps=reward)")
    rho_change: float = Field(0.1, gt=0, description="change of max rho from which a step is key (not with reward)")
    scale: float = Field(0.2, gt=0, description="K: edits are one of -2K, -K, +K, +2K (ACE: 0.2)")
    edits: int = Field(4, ge=1, description="edits an episode at most (ACE: 4)")
    key_limit: int = Field(16, ge=1, le=32, description="key steps shown to the critic at most")
    every: int = Field(4, ge=1, description="finished episodes between two critic requests a refiner")


class LanguageSettings(Settings):
    """How the model is asked; which one answers is `llm.engine.model`."""

    prompt: Literal["ace", "paper"] = Field(
        "ace", description="ours, or the paper's: no candidate list, line -> bus changes, at most five"
    )
    candidates: int = Field(12, ge=0, description="candidates listed in our prompt besides do-nothing; 0: no list")
    substations: int = Field(3, ge=0, description="substations written out element by element in the prompt")
    flows: bool = Field(
        False, description="with the far end, power and loading of each element (for a model that can reason with them)"
    )
    danger: bool = Field(
        True,
        description="with each candidate's danger, what the next attack and the next step may do (grid/danger.py), and "
        "at the end what is left of the candidates, least danger first",
    )
    max_tokens: int = Field(160, ge=16, description="reply tokens at most")
    temperature: float = Field(0.7, ge=0, description="sampling temperature of the first round")
    deadline_s: float = Field(60.0, gt=0, description="seconds after which a request is given up")


class FinetuneSettings(Settings):
    """LoRA on the best of the replay (docs/method.md)."""

    enabled: bool = Field(True, description="tune the model during training")
    every: int = Field(100, ge=1, description="new confirmed refinements between two tunings (ACE: 100)")
    window: int = Field(1000, ge=1, description="latest refinements that the data set is drawn from (ACE: 1000)")
    least: int = Field(8, ge=1, description="confirmed refinements without which nothing is tuned")
    labels: Literal["reply", "best"] = Field(
        "reply",
        description="what is learned: the reply that a replay confirmed, or the best action known from the replays of "
        "the refinement, in our words",
    )
    objective: Literal["sft", "dpo"] = Field(
        "sft", description="likelihood of the better reply; dpo: its preference over one that lost, besides"
    )
    dpo_beta: float = Field(0.1, gt=0, description="how dear leaving the base model is (objective=dpo)")
    rank: int = Field(16, ge=1, description="LoRA rank")
    alpha: int = Field(32, ge=1, description="LoRA alpha")
    lr: float = Field(1e-4, gt=0, description="Adam step size")
    examples: int = Field(512, ge=1, description="examples drawn for one tuning (ACE: not published)")
    batch: int = Field(8, ge=1, description="examples a step (ACE: 8)")
    gate_snapshots: int = Field(64, ge=8, description="held-out pivotal snapshots of the acceptance gate")
    gate_tolerance: float = Field(1.0, ge=0, description="standard errors by which survival regret may be worse")
    seed: int = Field(0, description="seed of sampling and training")
