"""Tokenizer and model of the embedded model: numbers are symbols, everything round-trips, the folder loads anywhere."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ace_ray.finetune.examples import Variation, make_example
from ace_ray.finetune.train import IGNORE, collate, encode_chat, reply_loss
from ace_ray.lab.embedded.model import ModelShape, new_model, save_model, train_tokenizer
from ace_ray.lab.embedded.synthetic import SyntheticCases, copying_lesson
from ace_ray.lab.embedded.train import Examples, Recipe, Sources, build, learning_rate, train

pytestmark = pytest.mark.unit
SHAPE = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64, positions=2048)
SOURCES = Sources([], [], [], "You review the decisions.")


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    source = SyntheticCases(rng)
    return [make_example(source.draw(), rng, Variation()) for _ in range(60)]


@pytest.fixture(scope="module")
def folder(examples, tmp_path_factory):
    """A model folder as it is shipped, untrained."""
    texts = [t for e in examples for t in (*(m["content"] for m in e.messages), e.reply)]
    tokenizer = train_tokenizer(texts, 2600)
    out = tmp_path_factory.mktemp("model")
    save_model(new_model(tokenizer, SHAPE), tokenizer, out)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder):
    """As every tool loads it, the inference engine included."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_every_integer_below_1000_is_one_token_however_it_is_loaded(tokenizer):
    for i in range(0, 1000, 7):
        assert len(tokenizer(f" {i}")["input_ids"]) == 1
        assert len(tokenizer(f"{i}")["input_ids"]) == 1


def test_any_text_comes_back(tokenizer, examples):
    for text in (examples[0].messages[1]["content"], examples[0].reply, "Überlast 99999 % {}\n\t\x00 ~ 漢字"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_prompt_is_short(tokenizer, examples):
    lengths = [encode_chat(tokenizer, e.messages, e.reply)[1] for e in examples]
    assert np.median(lengths) < 1300 and max(lengths) <= 2000


def test_an_untrained_model_repeats_what_it_reads(tokenizer):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = new_model(tokenizer, ModelShape())
    count = 400
    once = torch.tensor(np.random.default_rng(1).permutation(len(tokenizer))[:count])
    ids = torch.cat([once, once])[None]
    with torch.no_grad():
        told = model(input_ids=ids).logits[0].argmax(-1)
    again = torch.arange(count + 3, 2 * count - 1)  # the first tokens have no predecessors to be known by
    assert (told[again] == ids[0, again + 1]).float().mean() > 0.9
    first = torch.arange(3, count - 1)
    assert (told[first] == ids[0, first + 1]).float().mean() < 0.05, "what was not read yet is not known"


def test_a_copying_lesson_asks_for_what_it_shows():
    lessons = [copying_lesson(np.random.default_rng(seed)) for seed in range(20)]
    assert all(lesson.messages == [{"role": "user", "content": lesson.reply}] for lesson in lessons)
    assert len({lesson.reply for lesson in lessons}) == 20
    assert all(any(word.isdigit() for word in lesson.reply.split()) for lesson in lessons)


def test_the_reply_alone_is_learned_and_ends_with_the_end_token(tokenizer, examples):
    ids, head = encode_chat(tokenizer, examples[0].messages, examples[0].reply)
    batch = collate([(ids, head), (ids[: head + 5], head)])
    learned = batch["labels"][0][batch["labels"][0] != IGNORE].tolist()
    assert tokenizer.decode(learned) == examples[0].reply + tokenizer.eos_token
    assert (batch["labels"][1] != IGNORE).sum() == 5


def test_the_loss_is_the_cross_entropy_of_the_reply(folder, tokenizer, examples):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    batch = collate([encode_chat(tokenizer, e.messages, e.reply) for e in examples[:3]])
    with torch.no_grad():
        logits = model(input_ids=batch["ids"]).logits[:, :-1]
        expected = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), batch["labels"][:, 1:].reshape(-1), ignore_index=IGNORE
        )
        assert reply_loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_example_depends_on_seed_and_index_alone():
    recipe = Recipe(examples=50, seed=3)
    forward = [Examples(SOURCES, recipe).example(i).reply for i in range(20)]
    backward = [Examples(SOURCES, recipe).example(i).reply for i in reversed(range(20))][::-1]
    assert forward == backward
    assert forward != [Examples(SOURCES, Recipe(examples=50, seed=4)).example(i).reply for i in range(20)]


def test_the_step_size_warms_up_and_falls_to_a_tenth():
    recipe = Recipe(lr=1.0, warmup=0.1)
    rates = [learning_rate(i, 100, recipe) for i in range(100)]
    assert rates[9] == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_training_lowers_the_loss_and_goes_on_from_a_checkpoint(tmp_path):
    recipe = Recipe(examples=40, batch=2, lr=5e-3, vocabulary=2600)
    checkpoint = tmp_path / "checkpoint.safetensors"
    _, _, curve = train(SOURCES, recipe, SHAPE, device="cpu", minutes=0.0, checkpoint=checkpoint)
    assert curve[-1]["step"] == 1
    _, _, curve = train(SOURCES, recipe, SHAPE, device="cpu", checkpoint=checkpoint)
    assert curve[-1]["step"] == 20
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5


def test_building_needs_a_label_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="build-embedded --stage labels"):
        build(tmp_path, tmp_path / "out", Recipe(), SHAPE, "cpu")


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    recipe = Recipe(examples=12, batch=2, vocabulary=2600)
    straight, _, _ = train(SOURCES, recipe, SHAPE, device="cpu")
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(SOURCES, recipe, SHAPE, device="cpu", minutes=0.0, checkpoint=checkpoint)
    resumed, _, _ = train(SOURCES, recipe, SHAPE, device="cpu", checkpoint=checkpoint)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert (a == b).all()


def test_training_needs_neither_ray_nor_vllm_nor_pyarrow(tmp_path):
    """The stage runs where label rows come packed as JSON lines, and nothing serves."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "meta.json").write_text(json.dumps({"critic_system": "You review the decisions."}))
    (tmp_path / "out" / "adapters" / "critic-v1").mkdir(parents=True)  # of the weights that are replaced
    script = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "pyarrow", "vllm"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from ace_ray.lab.embedded.train import main
main(["--labels", r"{tmp_path / "labels"}", "--out", r"{tmp_path / "out"}", "--device", "cpu", "--examples", "4",
      "--batch", "2", "--hidden", "32", "--layers", "1", "--intermediate", "64", "--vocabulary", "2600"])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=400)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "adapters").exists()
    assert json.loads((tmp_path / "out" / "training.json").read_text())["recipe"]["examples"] == 4
