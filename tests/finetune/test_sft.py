"""Losses on replies: the sum of log-probabilities and the preference loss against independent references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ace_ray.finetune.train import bfloat16_pays, collate, preference_loss, reply_logprobs, reply_loss

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.unit

LOGPROB = st.floats(-200.0, 0.0, allow_nan=False)


@pytest.fixture(scope="module")
def model():
    """A random tiny causal LM."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=40, num_attention_heads=2, num_key_value_heads=1, **shape)).eval()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(LOGPROB, LOGPROB, LOGPROB, LOGPROB), min_size=1, max_size=6), st.floats(0.01, 2.0))
def test_the_preference_loss_is_minus_the_log_of_bradley_and_terrys_chance(pairs, beta):
    policy = torch.tensor([p[0] for p in pairs] + [p[1] for p in pairs], dtype=torch.float64)
    reference = torch.tensor([p[2] for p in pairs] + [p[3] for p in pairs], dtype=torch.float64)
    # the chance that the better one wins, of the implied rewards r = beta log(pi / ref): 1 / (1 + exp(r_w - r_b))
    margins = [beta * (worse - ref_worse) - beta * (better - ref) for better, worse, ref, ref_worse in pairs]
    expected = np.mean([np.logaddexp(0.0, margin) for margin in margins])
    assert float(preference_loss(policy, reference, beta)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_policy_that_is_its_reference_is_undecided_and_is_drawn_to_the_better_reply():
    policy = torch.tensor([-3.0, -5.0, -2.0, -9.0], requires_grad=True)
    loss = preference_loss(policy, policy.detach(), 0.1)
    loss.backward()
    assert float(loss) == pytest.approx(np.log(2.0))
    assert policy.grad.tolist() == pytest.approx([-0.025, -0.025, 0.025, 0.025])


def test_log_probabilities_are_those_of_the_replys_tokens_one_by_one(model):
    rows = [([3, 4, 5, 6, 7], 2), ([8, 9, 10], 1), ([1, 2, 3, 4, 5, 6, 7, 8], 6)]
    found = reply_logprobs(model, collate(rows)).tolist()
    for (ids, head), value in zip(rows, found, strict=True):
        logits = model(input_ids=torch.tensor([ids])).logits[0].double().detach().numpy()
        expected = sum(logits[t - 1][ids[t]] - np.log(np.exp(logits[t - 1]).sum()) for t in range(head, len(ids)))
        assert value == pytest.approx(expected, rel=1e-4)
    tokens = sum(len(ids) - head for ids, head in rows)
    assert float(reply_loss(model, collate(rows))) == pytest.approx(-sum(found) / tokens, rel=1e-5)


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [("cpu", "AVX2", False), ("cpu", "DEFAULT", False), ("cpu", "AVX512", True), ("cuda", "AVX2", True)],
)
def test_bfloat16_is_left_where_the_processor_would_emulate_it(device, capability, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert bfloat16_pays(device) is expected
