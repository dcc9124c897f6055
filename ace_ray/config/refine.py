"""Settings of refinement: refiners, actor, critic, fine-tuning (docs/method.md)."""

from typing import Literal

from pydantic import Field

from ace_ray.config.base import Settings


class RefineSettings(Settings):
    """Which decisions are refined, and who proposes the better action."""

    refiner: Literal["llm", "search", "random", "off"] = Field("llm", description="who proposes the better action")
    refiners: int = Field(1, ge=0, description="refiner processes")
    trigger: Literal["lookback", "paper"] = Field(
        "lookback",
        description="which decisions are queued: those before a blackout, walked back from it, or those with r < r_low",
    )
    lookback: int = Field(
        40, ge=1, description="decisions before a blackout among which the latest that can still be saved is looked for"
    )
    walk: int = Field(8, ge=1, description="decisions asked about before one blackout, from that one back")
    r_low: float = Field(0.0, description="reward below which trigger=paper asks (ACE's best: 0)")
    span: Literal["horizon", "decision"] = Field(
        "horizon",
        description="how far the row of a replayed action reaches: over the comparison's horizon, greedy playing on, "
        "so that Q learns what the replay showed; or up to the next decision (ACE)",
    )
    rounds: int = Field(5, ge=1, description="rounds with feedback before a refinement is given up (ACE: 5)")
    proposals: int = Field(
        5, ge=1, description="replays a search or random refinement may spend; equal to rounds in paired comparisons"
    )
    queue: int = Field(
        256, ge=1, description="pending refinements kept; the oldest of the lowest value is dropped first"
    )
    seed_queue: bool = Field(False, description="fill the queue with the warm-start decisions that ship with the model")
    advantage_share: float = Field(
        0.25, ge=0, le=1, description="share of requests for lowest-advantage decisions while no blackout is pending"
    )


class CriticSettings(Settings):
    """Bounded edits of key steps (docs/method.md, eq. 5)."""

    source: Literal["llm", "random", "off"] = Field(
        "llm",
        description="who edits rewards (from when on: `start`): the model; random: the model's edits, on key steps "
        "drawn at random (for comparison); off: nobody",
    )
    key_steps: Literal["lookback", "rho", "reward"] = Field(
        "lookback",
        description="key steps by look-back from a blackout, by change of the highest rho, or by |reward| (ACE)",
    )
    lookback: int = Field(10, ge=1, description="last decisions before a blackout that are key (key_steps=lookback)")
    r_high: float = Field(0.1, description="|reward| at or above which a step is key (key_steps=reward)")
    rho_change: float = Field(
        0.1, gt=0, description="change of the highest rho at or above which a step is key (not with key_steps=reward)"
    )
    scale: float = Field(0.2, gt=0, description="K: each edit is -2K, -K, +K or +2K (ACE: 0.2)")
    edits: int = Field(4, ge=1, description="maximum edits per episode (ACE: 4)")
    key_limit: int = Field(16, ge=1, le=32, description="maximum key steps shown to the critic")
    every: int = Field(4, ge=1, description="finished episodes per critic request")
    start: int = Field(
        0, ge=0, description="refined rows in D_LLM from which the critic is asked; 0: when the ring is full (ACE)"
    )


class LanguageSettings(Settings):
    """How the model is asked; which one answers is `llm.engine.model`."""

    prompt: Literal["ace", "paper"] = Field(
        "ace", description="ace: this project's prompt; paper: no candidate list, at most five line -> bus changes"
    )
    candidates: int = Field(12, ge=0, description="candidates listed in prompt=ace besides do-nothing; 0: no list")
    substations: int = Field(3, ge=0, description="substations written out element by element in the prompt")
    flows: bool = Field(
        False, description="show the far end, power and loading of each element (for a model that can reason with them)"
    )
    danger: bool = Field(
        True,
        description="show the risk of each candidate, which the prompt calls its danger (grid/risk.py), and end with "
        "the remaining candidates, lowest risk first",
    )
    max_tokens: int = Field(160, ge=16, description="maximum tokens of a reply")
    temperature: float = Field(0.7, ge=0, description="sampling temperature of the first round")
    deadline_s: float = Field(60.0, gt=0, description="seconds after which a request is abandoned")


class FinetuneSettings(Settings):
    """LoRA on the best of the replay (docs/method.md)."""

    enabled: bool = Field(True, description="tune the model during training")
    every: int = Field(100, ge=1, description="new confirmed refinements between two tunings (ACE: 100)")
    window: int = Field(1000, ge=1, description="latest refinements that the data set is drawn from (ACE: 1000)")
    least: int = Field(8, ge=1, description="minimum confirmed refinements to tune on")
    labels: Literal["reply", "best"] = Field(
        "reply",
        description="what is learned: the reply that a replay confirmed, or the best action known from the "
        "refinement's replays, in the embedded model's wording",
    )
    objective: Literal["sft", "dpo"] = Field(
        "sft", description="sft: likelihood of the better reply; dpo: also its preference over one that lost"
    )
    dpo_beta: float = Field(0.1, gt=0, description="weight of the KL penalty against the base model (objective=dpo)")
    rank: int = Field(16, ge=1, description="LoRA rank")
    alpha: int = Field(32, ge=1, description="LoRA alpha")
    lr: float = Field(1e-4, gt=0, description="Adam step size")
    examples: int = Field(512, ge=1, description="examples drawn for one tuning (ACE: not published)")
    batch: int = Field(8, ge=1, description="examples per step (ACE: 8)")
    gate_snapshots: int = Field(64, ge=8, description="held-out pivotal snapshots of the acceptance gate")
    gate_tolerance: float = Field(
        1.0,
        ge=0,
        description="standard errors by which the survival regret of a new version may exceed the present one's",
    )
    seed: int = Field(0, description="seed of sampling and training")
