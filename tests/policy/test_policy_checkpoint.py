"""Policies on disk: equal after a round trip, refused on another grid, clear when torn."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ace_ray.config.errors import AceError, GridMismatchError
from ace_ray.config.learning import PolicySettings
from ace_ray.policy import checkpoint
from ace_ray.policy.inference import SlotPolicy

pytestmark = pytest.mark.unit

SPEC = {"slots": 6, "slot_features": 5, "context_features": 4, "lines": 3, "outages": 2}
CARD = checkpoint.PolicyCard(
    env="l2rpn_case14_sandbox",
    catalogue_hash="ab" * 32,
    spec=SPEC,
    settings=PolicySettings(hidden=16, heads=2, layers=1),
    memory=(3, 17, 66_000),
    version=42,
    decisions=99,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = checkpoint.build(CARD)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    return network


def decision() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    mask = np.array([True, True, False, True, False, True])
    return SimpleNamespace(
        context=rng.normal(size=4).astype(np.float32),
        slots=rng.normal(size=(6, 5)).astype(np.float16),
        score=np.where(mask, -rng.random(6), -1e9).astype(np.float32),
        mask=mask,
    )


def test_a_saved_policy_plays_as_before_and_keeps_its_card(tmp_path, network):
    checkpoint.save(tmp_path, network.state_dict(), CARD)
    loaded, card = checkpoint.load(tmp_path)
    assert card == CARD
    assert np.array_equal(SlotPolicy(loaded).logits(decision()), SlotPolicy(network).logits(decision()))
    assert {p.name for p in tmp_path.iterdir()} == {"policy.safetensors", "policy.json"}


def rewritten_card(folder, **changes):
    card = folder / checkpoint.CARD
    row = json.loads(card.read_text()) | changes
    card.write_text(json.dumps({key: value for key, value in row.items() if value is not None}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, network, value):
    weights = network.state_dict()
    name = min(weights)
    weights[name].view(-1)[0] = value
    checkpoint.save(tmp_path, weights, CARD)
    with pytest.raises(AceError, match=f"not finite, in 1 of {len(weights)} tensors .{name}"):
        checkpoint.load(tmp_path)


def test_weights_are_those_that_the_card_was_written_with(tmp_path, network):
    checkpoint.save(tmp_path, network.state_dict(), CARD)
    weights = tmp_path / checkpoint.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # the last bit of a mantissa or so: still a finite number
    weights.write_bytes(data)
    with pytest.raises(AceError, match="hash differs"):
        checkpoint.load(tmp_path)
    rewritten_card(tmp_path, weights_sha256=None)  # a card of before there was a hash
    assert checkpoint.load(tmp_path)[1] == CARD


def test_a_card_of_a_newer_version_is_told_from_a_torn_one(tmp_path, network):
    checkpoint.save(tmp_path, network.state_dict(), CARD)
    rewritten_card(tmp_path, trained_on="weeks")
    with pytest.raises(AceError, match="field 'trained_on', which this version cannot read"):
        checkpoint.load_card(tmp_path)
    (tmp_path / checkpoint.CARD).write_text("[1]")
    with pytest.raises(AceError, match="cannot be read"):
        checkpoint.load_card(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env": "l2rpn_wcci_2022_dev"}, "trained on l2rpn_case14_sandbox, not on l2rpn_wcci_2022_dev"),
        ({"catalogue_hash": "cd" * 32}, "catalogue is abababababab, .* here is cdcdcdcdcdcd"),
        ({"spec": SPEC | {"slot_features": 9}}, "slot_features=5, the decision engine gives 9"),
    ],
)
def test_another_grid_is_refused(change, words):
    here = {"env": CARD.env, "catalogue_hash": CARD.catalogue_hash, "spec": SPEC} | change
    with pytest.raises(GridMismatchError, match=words):
        CARD.check(**here)


def test_torn_weights_and_cards_give_one_clear_error(tmp_path, network):
    checkpoint.save(tmp_path, network.state_dict(), CARD)
    weights = tmp_path / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(AceError, match=r"policy\.safetensors cannot be read"):
        checkpoint.load(tmp_path)
    (tmp_path / checkpoint.CARD).write_text('{"env": ')
    with pytest.raises(AceError, match=r"policy\.json cannot be read"):
        checkpoint.load(tmp_path)
    with pytest.raises(AceError, match="no policy in"):
        checkpoint.load(tmp_path / "nowhere")


def test_a_card_of_another_format_is_refused(tmp_path, network):
    checkpoint.save(tmp_path, network.state_dict(), replace(CARD, format=2))
    with pytest.raises(AceError, match="format 2"):
        checkpoint.load(tmp_path)


def test_checkpoints_of_a_run_are_found_by_number_or_latest(tmp_path, network):
    for version in (0, 900, 1200):
        folder = tmp_path / "checkpoints" / f"{version:06d}"
        folder.mkdir(parents=True)
        checkpoint.save(folder, network.state_dict(), replace(CARD, version=version))
    (tmp_path / "checkpoints" / "002000").mkdir()  # begun, never finished
    assert checkpoint.find(tmp_path).name == "001200"
    assert checkpoint.find(tmp_path, "N").name == "001200"
    assert checkpoint.find(tmp_path, 0).name == "000000"
    with pytest.raises(AceError, match="no checkpoint ²"):
        checkpoint.find(tmp_path, "²")
    with pytest.raises(AceError, match="no checkpoint 7") as error:
        checkpoint.find(tmp_path, "7")
    assert "0, 900, 1200" in str(error.value)


def test_sampling_follows_the_policy_and_never_picks_an_illegal_slot(network):
    policy, rng, state = SlotPolicy(network), np.random.default_rng(0), decision()
    counts = np.bincount([policy.sample(state, rng) for _ in range(2000)], minlength=6) / 2000
    assert (counts[~state.mask] == 0).all()
    np.testing.assert_allclose(counts, np.exp(policy.log_probabilities(state)), atol=0.05)
    assert policy.best(state) == int(np.argmax(policy.logits(state)))


def test_the_card_is_plain_json(tmp_path, network):
    checkpoint.save(tmp_path, network.state_dict(), CARD)
    row = json.loads((tmp_path / checkpoint.CARD).read_text())
    assert row["memory"] == [3, 17, 66_000] and row["spec"]["lines"] == 3 and row["settings"]["hidden"] == 16
