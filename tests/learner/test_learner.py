"""The Learner inside RLlib's LearnerGroup: what it learns, what an update touches, what a saved state brings back."""

import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner_group import LearnerGroup

from ace_ray.config.errors import AceError
from ace_ray.config.learning import LearnerSettings, PolicySettings
from ace_ray.config.run import ResourceSettings
from ace_ray.learner import state
from ace_ray.learner.batch import learner_batch
from ace_ray.learner.group import configure_learner
from ace_ray.learner.module import module_spec
from ace_ray.policy import distribution
from ace_ray.policy.network import SlotNetwork
from ace_ray.schema import StateShape
from tests.learner.masked_mdp import STATES, K, MaskedMDP

POLICY = PolicySettings(hidden=32, heads=2, layers=1, prior_temperature=0.02)


def build(policy: PolicySettings = POLICY, **changes: object) -> LearnerGroup:
    """A LearnerGroup for the masked MDP."""
    settings = LearnerSettings(
        **({"lr": 3e-3, "alpha_lr": 1e-2, "policy_delay": 0, "target_tau": 0.05, "batch": 64} | changes)
    )
    spec = module_spec(StateShape(slots=K, slot_features=K, context_features=STATES), policy, settings.alpha_initial)
    config = configure_learner(AlgorithmConfig(), settings, ResourceSettings(learner_cpu=0.5), seed=0)
    return config.build_learner_group(rl_module_spec=spec)


def updates(group: LearnerGroup, n: int, seed: int = 0) -> None:
    mdp, rng = MaskedMDP.make(), np.random.default_rng(seed)
    for _ in range(n):
        group.update(batch=learner_batch(mdp.rows(rng, 64)))


def policy_of(group: LearnerGroup) -> tuple[np.ndarray, np.ndarray]:
    """(pi, KL to the prior) in every state of the MDP."""
    network = SlotNetwork(STATES, K, POLICY)
    network.load_state_dict({k: torch.as_tensor(v) for k, v in state.policy_weights(group).items()})
    batch = {k: torch.as_tensor(v) for k, v in MaskedMDP.make().states(np.arange(STATES)).items()}
    with torch.no_grad():
        logits = network(batch)
        spent = distribution.kl(logits, network.prior(batch), batch["mask"])
        return distribution.probabilities(logits, batch["mask"]).numpy(), spent.numpy()


@pytest.mark.unit
def test_the_masked_mdp_is_learned_against_a_misleading_prior():
    mdp = MaskedMDP.make()
    best = mdp.optimal_q().argmax(1)
    group = build(regulariser="entropy", entropy_share=0.05, alpha_initial=0.3)
    before, _ = policy_of(group)
    contested = mdp.mask.sum(1) > 1
    assert (before.argmax(1) != best)[contested].all(), "the prior must mislead, or nothing is shown"
    updates(group, 300)
    after, _ = policy_of(group)
    assert after.argmax(1).tolist() == best.tolist()
    assert (after[~mdp.mask] == 0).all()


@pytest.mark.unit
def test_the_kl_regulariser_holds_the_policy_at_its_budget():
    group = build(regulariser="kl", kl_budget=0.15, alpha_initial=1.0)
    updates(group, 300)
    mdp = MaskedMDP.make()
    probabilities, spent = policy_of(group)
    share = spent.mean()  # rows of the MDP are uniform over states
    # The single-slot state can spend nothing and is allowed nothing: the mean over the others is the budget.
    assert 0.10 < share * STATES / (mdp.mask.sum(1) > 1).sum() < 0.20, spent
    greedy = np.where(mdp.mask, mdp.score, -np.inf).argmax(1)
    assert (probabilities[np.arange(STATES), greedy] > 0.05).all()


@pytest.mark.unit
def test_the_policy_waits_for_q_and_targets_follow_slowly():
    group = build(policy_delay=3, target_tau=0.5, target_every=2)
    start = state.module_state(group)
    updates(group, 3)
    waited = state.module_state(group)
    moved = {name for name in start if not np.array_equal(start[name], waited[name])}
    assert not any(name.startswith("policy.") or name == "log_alpha" for name in moved)
    assert any(name.startswith("q1.") for name in moved) and waited["updates"] == 3
    updates(group, 1, seed=1)
    later = state.module_state(group)
    assert any(name.startswith("policy.") and not np.array_equal(waited[name], later[name]) for name in start)
    assert waited["log_alpha"] != later["log_alpha"]
    name = "target_q1.advantage.0.weight"  # update 4 is a multiple of target_every
    expected = 0.5 * waited[name] + 0.5 * later[name.removeprefix("target_")]
    np.testing.assert_allclose(later[name], expected, atol=1e-7)


@pytest.mark.unit
def test_a_saved_learner_continues_as_if_never_stopped(tmp_path):
    one = build()
    updates(one, 5)
    state.save(one, tmp_path)
    updates(one, 5, seed=1)
    two = build()
    state.load(two, tmp_path)
    updates(two, 5, seed=1)
    a, b = state.module_state(one), state.module_state(two)
    assert a.keys() == b.keys() and a["updates"] == 10
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.unit
def test_a_learner_of_other_sizes_is_refused(tmp_path):
    state.save(build(), tmp_path)
    with pytest.raises(AceError, match="does not fit this network"):
        state.load(build(PolicySettings(hidden=16, heads=2, layers=1)), tmp_path)
    (tmp_path / state.WEIGHTS).write_bytes(b"torn")
    with pytest.raises(AceError, match="cannot be read"):
        state.load(build(), tmp_path)


@pytest.mark.unit
def test_rows_weighted_zero_move_q_but_not_the_policy():
    """Eq. (10): w_r weights the policy loss; eq. (2) stays unweighted."""
    group, mdp = build(), MaskedMDP.make()
    rows = mdp.rows(np.random.default_rng(0), 64) | {"weight": np.zeros(64)}
    start = state.module_state(group)
    group.update(batch=learner_batch(rows))
    after = state.module_state(group)
    head = "policy.residual.weight"
    assert np.array_equal(start[head], after[head])
    assert not np.array_equal(start["q1.advantage.0.weight"], after["q1.advantage.0.weight"])


@pytest.mark.ray
def test_a_remote_learner_learns_the_same_as_a_local_one(tmp_path):
    local = build()
    updates(local, 4)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, configure_logging=False, object_store_memory=80 << 20
    )
    try:
        remote = build(num_learners=1)
        updates(remote, 2)
        state.save(remote, tmp_path)
        again = build(num_learners=1)
        state.load(again, tmp_path)
        mdp, rng = MaskedMDP.make(), np.random.default_rng(0)
        batches = [learner_batch(mdp.rows(rng, 64)) for _ in range(4)]
        for batch in batches[2:]:
            again.update(batch=batch)
        a, b = state.module_state(local), state.module_state(again)
        for name in a:
            np.testing.assert_allclose(a[name], b[name], atol=2e-5, err_msg=name)
        remote.shutdown()
        again.shutdown()
    finally:
        ray.shutdown()
