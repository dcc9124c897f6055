"""The critic step (docs/method.md, eq. 5): a finished episode of the policy -> bounded edits of rewards.

Plain: the episode comes as transition records from the replay, the edits go back to it. Words need observations, so the
key decisions, and only those, are rebuilt on one replay of the episode.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ace_ray.config.refine import CriticSettings, LanguageSettings
from ace_ray.domain import Domain, Simulator, Snapshot
from ace_ray.language.ask import ask_model
from ace_ray.language.critic import Edit, EpisodeStep, KeyStep, critic_messages, key_steps, parse_critic
from ace_ray.language.schema import CRITIC_SCHEMA
from ace_ray.refine.case import Words
from ace_ray.replay.episodes import snapshots_of

log = logging.getLogger(__name__)


@dataclass
class Criticism:
    """What the critic said of one episode: edits as rows of the edit record, or why there are none."""

    episode: str
    edits: list[dict[str, Any]] = field(default_factory=list)
    dropped: int = 0
    error: str = ""


class Critic:
    """Asks the language model as value critic.

    Args:
        client: an `llm_service` client.
        domain: reads the scenarios of the records.
        simulator: brings an environment to a decision; shared with the refiner's comparator.
        words: says what happened there.
        critic, language: settings.
        seed: maker of request seeds.
    """

    def __init__(
        self,
        client: Any,
        domain: Domain,
        simulator: Simulator,
        words: Words,
        critic: CriticSettings,
        language: LanguageSettings,
        seed: Callable[[], int] = lambda: 0,
    ) -> None:
        self._client = client
        self._domain = domain
        self._simulator = simulator
        self._words = words
        self._critic = critic
        self._language = language
        self._seed = seed

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> Criticism:
        """Edits for one finished episode, given its transition records in order; errors of the model are counted, not
        raised, unless nothing can be asked at all (`llm_service.errors.ModelError`)."""
        result = Criticism(str(rows[0]["episode"]))
        try:
            keys = self._keys(rows)
        except self._domain.faults as error:
            log.warning("critic: episode %s cannot be rebuilt: %s", result.episode, error)
            return replace(result, error="rebuild")
        messages = critic_messages(
            keys,
            self._critic,
            survived=not rows[-1]["terminated"],
            steps_played=int(rows[-1]["step"] + rows[-1]["steps"]),
            decisions=len(rows),
            total=float(sum(row["reward"] for row in rows)),
        )
        answer = ask_model(
            self._client, messages, self._language, schema=CRITIC_SCHEMA, role="critic", seed=self._seed()
        )
        if answer.reply is None:
            return replace(result, error=answer.error or "")
        reply = answer.reply
        said = parse_critic(reply.text, keys, self._critic)
        if self._critic.source == "random":
            said = replace(said, edits=self._elsewhere(said.edits, keys))
        edits = [
            {
                "transition_id": edit.id,
                "delta": edit.change,
                "reason": next(key.reason for key in keys if key.step.id == edit.id),
                "prompt": json.dumps(messages),
                "reply": reply.text,
                "model": reply.model,
                "adapter_version": reply.version,
            }
            for edit in said.edits
        ]
        return replace(result, edits=edits, dropped=said.dropped, error=said.error or "")

    def _elsewhere(self, edits: Sequence[Edit], keys: Sequence[KeyStep]) -> tuple[Edit, ...]:
        """The same changes on key steps drawn at random, each at most once."""
        drawn = np.random.default_rng(self._seed()).permutation(len(keys))[: len(edits)]
        return tuple(replace(edit, id=keys[i].step.id) for edit, i in zip(edits, drawn, strict=True))

    def _keys(self, rows: Sequence[Mapping[str, Any]]) -> list[KeyStep]:
        steps = []
        for i, row in enumerate(rows):
            ended = math.nan if row["terminated"] else float(row["rho_max"])
            after = float(rows[i + 1]["rho_before"]) if i + 1 < len(rows) else ended
            step = EpisodeStep(
                id=int(row["id"]),
                step=int(row["step"]),
                when="",
                action="",
                reward=float(row["reward"]),
                rho_before=float(row["rho_before"]),
                rho_after=after,
                overloads=int(row["overloads"]),
                rank=int(row["rank"]),
                behind=float(row["behind"]),
            )
            steps.append(step)
        keys = key_steps(steps, self._critic)
        snapshots = {snapshot.step: snapshot for snapshot in snapshots_of(rows, len(rows), self._domain)}
        wanted = [snapshots[key.step.step] for key in keys if key.step.step in snapshots]
        self._simulator.hold(wanted)
        played = {int(row["id"]): int(row["catalogue_id"]) for row in rows}
        return [self._in_words(key, snapshots.get(key.step.step), played[key.step.id]) for key in keys]

    def _in_words(self, key: KeyStep, snapshot: Snapshot | None, catalogue_id: int) -> KeyStep:
        if snapshot is None:
            return replace(key, step=replace(key.step, action=f"action {catalogue_id}"))
        obs = self._simulator.observation(snapshot)
        action = self._words.action_text(catalogue_id, obs)
        return replace(key, step=replace(key.step, when=self._words.when_text(obs), action=action))
