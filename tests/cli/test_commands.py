"""The commands as a user types them: help, mistakes, exit codes."""

import argparse
import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ace_ray import __version__
from ace_ray.cli import main, verbs
from ace_ray.cli.parser import make_parser, parse

pytestmark = pytest.mark.unit


def commands(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """(words, verb) of every command and group."""
    yield words, parser.get_default("verb")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, (*words, name))


ALL = list(commands(make_parser()))
WANTED = (
    "train evaluate compare finetune report export doctor|llm build-embedded|llm serve|llm ask|llm eval|"
    "llm eval-critic|"
    "replay show|replay verify|bench screen|bench rollout|bench llm|bench learner|bench refiners|bench critics|"
    "bench grids|bench drills|"
    "runs list|cluster start|cluster stop|cluster status|cluster clean"
)


def test_every_command_of_the_design_exists() -> None:
    first, *others = WANTED.split("|")
    wanted = {(word,) for word in first.split()} | {tuple(words.split()) for words in others}
    assert {words for words, verb in ALL if verb} == wanted


@pytest.mark.parametrize("words", [words for words, _ in ALL], ids=" ".join)
def test_every_command_answers_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: ace {' '.join(words)}".rstrip())


@pytest.mark.parametrize("verb", [verb for _, verb in ALL if verb])
def test_every_command_has_its_function(verb: str) -> None:
    assert callable(getattr(verbs, verb))


def test_finetune_takes_settings_that_win_over_the_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[object] = []
    monkeypatch.setattr("ace_ray.finetune.job.run_job", lambda run, role, words, say: given.extend((run, words)))
    (tmp_path / "run.json").write_text("{}")
    assert main(["finetune", str(tmp_path), "finetune.objective=dpo", "--role", "actor", "finetune.rank=8"]) == 0
    assert given == [tmp_path, ["finetune.objective=dpo", "finetune.rank=8"]]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ace {__version__}\n"


def test_help_is_there_at_once() -> None:
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "ace_ray", "train", "--help"], capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    assert done.returncode == 0 and "--resume" in done.stdout
    assert seconds < 1.0


def test_asking_for_help_imports_no_heavy_package() -> None:
    program = (
        "import sys\nfrom ace_ray.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'vllm', 'grid2op', 'numpy', 'pydantic'} & sys.modules.keys()\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_may_stand_before_and_after_options() -> None:
    args = parse(make_parser(), ["train", "seed=1", "--config", "a.yaml", "refiner=off", "--config", "b.yaml", "x.y=3"])
    assert args.overrides == ["seed=1", "refiner=off", "x.y=3"]
    assert args.config == ["a.yaml", "b.yaml"]


@pytest.mark.parametrize("words", [["train", "--sed=1"], ["train", "seed"], ["compare"], ["nonsense"], []])
def test_what_is_no_command_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if words == ["train", "seed"]:  # a word in the place of a setting is for the settings to refuse
        assert main(words) == 2
        assert "not an override" in capsys.readouterr().err
        return
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["train", "learner.btach=3"], "did you mean 'learner.batch'"),
        (["train", "--resume", "no-such-run"], "no run no-such-run"),
        (["train", "--resume", "r", "--config", "c.yaml"], "--resume takes its settings from the run"),
        (["evaluate", "--agent", "greedy", "grid.gamma=1"], "unknown setting 'grid.gamma'"),
        (["evaluate", "--agent", "greedy", "--figure-step", "3"], "--figure PNG"),
        (["compare", "/nowhere/a.json", "/nowhere/b.json"], "/nowhere/a.json does not exist"),
        (["export", "no-such-run", "/tmp/x"], "no run no-such-run"),
        (["replay", "verify", "no-such-run"], "no run no-such-run"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACE_RUNS", str(tmp_path))
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("ace: ") and said in told.err and "Traceback" not in told.err


def test_runs_are_listed_with_what_became_of_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACE_RUNS", str(tmp_path))
    assert main(["runs", "list"]) == 0
    assert "no runs in" in capsys.readouterr().out
    for name, content in {
        "one": json.dumps({"status": "finished", "decisions": 1234, "seconds": 90}),
        "torn": "{",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    assert main(["runs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (one,) = [line for line in lines if line.startswith("one")]
    assert one.split() == ["one", "finished", "?", "1234", "0", "1.5"]
    assert any(line.startswith("torn") and "cannot be read" in line for line in lines)


def test_doctor_prints_json_that_says_whether_the_machine_is_fit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACE_RUNS", str(tmp_path))
    code = main(["doctor", "--json", f"llm.engine.model={tmp_path}"])
    found = json.loads(capsys.readouterr().out)
    (model,) = [check for check in found["checks"] if check["name"] == "model"]
    assert model["state"] == "fail" and "config.json" in model["found"]
    assert (code, found["fit"]) == (1, False)


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, argparse.Action]]:
    """Every option of every command, with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from options(inner)
        elif action.option_strings and action.nargs != 0:
            yield parser, action


ONCE = [pair for pair in options(make_parser()) if not isinstance(pair[1], argparse._AppendAction)]


@pytest.mark.parametrize(
    ("parser", "option"), ONCE, ids=[f"{parser.prog} {option.option_strings[0]}" for parser, option in ONCE]
)
def test_an_option_given_twice_is_refused_unless_it_may_be_repeated(
    parser: argparse.ArgumentParser, option: argparse.Action, capsys: pytest.CaptureFixture[str]
) -> None:
    value = next(iter(option.choices)) if option.choices else "1"
    name = option.option_strings[-1]
    with pytest.raises(SystemExit):
        parser.parse_known_args([name, value, f"{name}={value}"])
    assert f"{name} is given twice" in capsys.readouterr().err


TARGETS = {"--json", "--parquet", "--figure", "--scores", "--episodes", "--out", "--states-dir"}


@pytest.mark.parametrize(
    ("parser", "option"),
    [pair for pair in ONCE if TARGETS & set(pair[1].option_strings)],
    ids=lambda one: getattr(one, "prog", "") or one.option_strings[0],
)
def test_every_output_is_tried_before_the_command_begins(
    parser: argparse.ArgumentParser, option: argparse.Action, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    target = str(tmp_path / "file" / "result")
    required = {"--agent": "greedy", "--out": str(tmp_path)}
    words = parser.prog.split()[1:] + (["a.json", "b.json"] if "compare" in parser.prog else [])
    for other in parser._actions:
        if other.required and other.option_strings and other is not option:
            words += [other.option_strings[0], required[other.option_strings[0]]]
    assert main([*words, option.option_strings[0], target]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("ace: cannot write") and target in told.err


def test_export_tries_its_folder_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["export", "no-such-run", str(tmp_path / "file" / "agent")]) == 2
    assert "cannot write into" in capsys.readouterr().err


SHORT = ["--env", "l2rpn_case14_sandbox", "--data", "shipped", "--processes", "1"]
SHORT += ["--scenarios", "chronics=0-1;seeds=0;steps=3"]


def test_several_agents_play_the_same_scenarios_and_their_result_can_be_compared_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, third = str(tmp_path / "both.json"), str(tmp_path / "third.json")
    assert main(["evaluate", "--agent", "do-nothing", "--agent", "reconnect", *SHORT, "--json", both]) == 0
    assert "reconnect - do-nothing" in capsys.readouterr().out
    found = json.loads(Path(both).read_text())
    assert [one["agent"] for one in found["agents"]] == ["do-nothing", "reconnect"]
    assert [len(one["episodes"]) for one in found["agents"]] == [2, 2]
    assert main(["evaluate", "--agent", "greedy", *SHORT, "--json", third]) == 0
    assert main(["compare", both, third]) == 0
    assert "greedy - do-nothing" in capsys.readouterr().out
    assert main(["evaluate", "--agent", "greedy", "--agent", "greedy", *SHORT]) == 2
    assert "'greedy' is given twice" in capsys.readouterr().err


def test_a_result_that_can_no_longer_be_written_has_been_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the episodes are played."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fill(*_: object, **__: object) -> None:
        raise full

    monkeypatch.setattr("os.replace", fill)
    monkeypatch.setattr(Path, "write_text", fill)
    assert main(["evaluate", "--agent", "do-nothing", *SHORT, "--json", str(tmp_path / "r.json")]) == 2
    told = capsys.readouterr()
    assert "do-nothing  " in told.out and "remedy: free space" in told.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["0", "-3", "²", "two"])
def test_a_number_of_processes_that_is_none_is_refused(number, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--agent", "do-nothing", f"--processes={number}"])
    assert f"argument --processes: '{number}' is not a whole number" in capsys.readouterr().err
