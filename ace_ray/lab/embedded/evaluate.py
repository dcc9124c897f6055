"""How good first-round replies are on labelled decisions, beside simple choices on the same ones: training's own
check, which needs neither Grid2Op nor a service. What a served model is worth, `ace llm eval` measures (exam.py).

A reply is good when the action that it names fares well in the replay: survival regret is the largest share of the
horizon that any action of the compared set survived, minus the share that the proposed one survived. A reply that
does not parse, names nothing that is listed or repeats the bad example counts as the worst action of the set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ace_ray import domain
from ace_ray.finetune.examples import LabelledCase
from ace_ray.finetune.held_out import Replier, deployed_case, proposal
from ace_ray.language.prompts import Message, actor_messages, what_is_left
from ace_ray.language.reply import parse_actor


def survival_regret(labelled: LabelledCase, proposed: int | None) -> float:
    """Regret of a proposal in [0, 1]; None, or an id without a known outcome, counts as the worst of the set."""
    ended = None if proposed is None else labelled.outcomes.get(proposed)
    return domain.survival_regret(labelled.outcomes.values(), ended, labelled.case.facts.horizon)


def is_pivotal(labelled: LabelledCase) -> bool:
    """Of do-nothing and the listed candidates some survive and some do not."""
    return domain.pivotal({i: o for i, o in labelled.outcomes.items() if labelled.case.number(i) is not None})


def evaluate_replies(cases: Sequence[LabelledCase], replier: Replier, seed: int = 0) -> dict[str, Any]:
    """Figures of the model and of simple choices, over all cases and over pivotal ones.

    `first`: the best score that is not the bad example (what greedy plays, or the next where that was bad); `left`:
    what the prompt ends with (`first` where it shows no danger), which is taught where nothing was replayed; `random`:
    any listed candidate but the bad example, expected value.
    """
    asked = [deployed_case(c) for c in cases]
    replies = replier([actor_messages(case) for case in asked])
    rng = np.random.default_rng(seed)
    rows = []
    for case, view, reply in zip(cases, asked, replies, strict=True):
        chosen = proposal(case, reply)
        others = [c for c in case.case.candidates if c.id != case.played.id]
        first = max(others, key=lambda c: c.score).id
        left = [case.case.candidates[i].id for i in what_is_left(view)] or [first]
        rows.append(
            {
                "pivotal": is_pivotal(case),
                "parsed": parse_actor(reply) is not None,
                "usable": chosen is not None,
                "model": survival_regret(case, chosen),
                "first": survival_regret(case, first),
                "left": survival_regret(case, left[0]),
                "random": float(np.mean([survival_regret(case, c.id) for c in others])),
                "same_as_first": chosen == first,
                "same_as_left": chosen == left[0],
            }
        )
    return {
        "all": _means(rows, rng),
        "pivotal": _means([r for r in rows if r["pivotal"]], rng),
    }


def _means(rows: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    if not rows:
        return {"states": 0}
    means: dict[str, Any] = {k: round(float(np.mean([r[k] for r in rows])), 4) for k in rows[0] if k != "pivotal"}
    gain = np.array([r["first"] - r["model"] for r in rows])
    draws = rng.choice(gain, size=(2000, len(gain))).mean(axis=1)
    means["first_minus_model_ci95"] = [round(float(x), 4) for x in np.percentile(draws, [2.5, 97.5])]
    return {"states": len(rows), **means}


def local_replier(model: Any, tokenizer: Any, device: str, max_tokens: int = 160, batch: int = 64) -> Replier:
    """Greedy replies of a transformers model, without grammar."""
    import torch

    from ace_ray.finetune.train import bfloat16_pays

    def reply(chats: Sequence[list[Message]]) -> list[str]:
        texts: list[str] = []
        for at in range(0, len(chats), batch):
            prompts = [
                tokenizer.apply_chat_template(list(c), tokenize=False, add_generation_prompt=True)
                for c in chats[at : at + batch]
            ]
            inputs = tokenizer(
                prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
            ).to(device)
            with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16_pays(device)):
                out = model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=max_tokens,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
            texts.extend(tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        return texts

    return reply


def evaluate_model(model: Any, tokenizer: Any, cases: Sequence[LabelledCase], device: str) -> dict[str, Any]:
    """`evaluate_replies` of a transformers model."""
    model.eval()
    figures = evaluate_replies(cases, local_replier(model, tokenizer, device))
    model.train()
    return figures
