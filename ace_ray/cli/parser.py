"""The commands of `ace` and their options. Imports nothing heavy, so that --help is there at once."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ace_ray import __version__
from ace_ray.config.outputs import writable_file, writable_folder

Add = Callable[[argparse.ArgumentParser], None]

AGENTS = (
    "do-nothing, reconnect, greedy, greedy+check, expert, llm, policy:RUN[@0|@N], policy+check:RUN, module:make_agent"
)
SCENARIOS = "{train|validation|test}:N, 'chronics=0,1;seeds=0-3', 'chronics=all;seeds=500+' (docs/scenarios.md)"
MODEL_SIZES = ("10M", "100M", "0.5B")


class _Once(argparse.Action):
    """Stores a value, as argparse does, but refuses an option given twice instead of taking the last."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if option_string is not None:
            given: set[str] = vars(namespace).setdefault("given", set())
            if self.dest in given:
                parser.error(f"{self.option_strings[-1]} is given twice, and takes one value")
            given.add(self.dest)
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """A parser, and its commands' parsers, whose options are given once unless they append."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for action in (None, "store"):
            self.register("action", action, _Once)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the chosen one is in `verb`, the name of a function in cli/verbs.py."""
    parser = _Parser(
        prog="ace",
        description="ACE on Ray: reinforcement learning and a language model that improve each other on power-grid "
        "topology control.",
        epilog="Settings are given as dotted.key=value after the options; docs/configuration.md lists them.",
    )
    parser.add_argument("--version", action="version", version=f"ace {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, what: str, *add: Add, settings: bool = False) -> None:
        _leaf(commands, name, name, what, add, settings)

    def group(name: str, what: str) -> Callable[..., None]:
        inner = commands.add_parser(name, help=what, description=what)
        verbs = inner.add_subparsers(metavar="COMMAND", required=True)

        def add_to_group(verb: str, what: str, *add: Add, settings: bool = False) -> None:
            _leaf(verbs, verb, f"{name}_{verb}", what, add, settings)

        return add_to_group

    command(
        "train", "train a policy, with or without a language model that refines its decisions", _train, settings=True
    )
    command(
        "evaluate", "play an agent on scenarios and print survival, reward and decision time", _evaluate, settings=True
    )
    command("compare", "compare evaluations with the first one, scenario by scenario", _compare)
    command(
        "finetune", "tune the language model on a run's refinements, and publish it if the gate accepts it", _finetune
    )
    command("report", "write the report of a run as one HTML page", _run)
    command("export", "write a run's policy as a Grid2Op agent that needs no Ray and no language model", _export)
    command("doctor", "check this machine: versions, memory, model, folders", _doctor, settings=True)

    llm = group("llm", "the language model")
    llm("build-embedded", "label decisions by replay and train the embedded model on them", _build, settings=True)
    llm("serve", "serve the model on Ray Serve until Ctrl-C", _serve, settings=True)
    llm("ask", "ask the model about one decision: prompt, replies and their replays", _ask, settings=True)
    llm(
        "eval",
        "measure the model on held-out decisions: legal replies, better actions, survival regret",
        _eval,
        settings=True,
    )
    llm(
        "eval-critic",
        "measure how often the critic lowers the reward of an injected mistake that led to a blackout",
        _eval,
        settings=True,
    )

    replay = group("replay", "the recorded decisions of a run")
    replay("show", "counts, refinements and the text of the latest ones", _run, _show)
    replay("verify", "check every shard against the manifest", _run)

    bench = group("bench", "small measurements of one part on this machine")
    bench(
        "screen",
        "time to rank every topology action and to check the best ones by AC power flow",
        _repeats,
        settings=True,
    )
    bench("rollout", "greedy episodes against a bare Grid2Op loop with the same actions", _rollout, settings=True)
    bench("llm", "tokens and requests per second of the language model", _requests, settings=True)
    bench("learner", "learner updates per second", _seconds, settings=True)
    bench(
        "refiners",
        "train with each refiner (llm, search, random, off) for the same number of decisions, and compare the policies",
        _trained("refiners"),
        settings=True,
    )
    bench(
        "critics",
        "train with the critic, with random edits and without edits for as many decisions, and compare the policies",
        _trained("critics"),
        settings=True,
    )

    bench("grids", "play the simple agents on every grid and write the page that compares them", _grids, settings=True)

    bench(
        "drills",
        "play agents in drills, in each of which a line is lost at a known step, and compare them drill by drill",
        _drills,
        settings=True,
    )

    group("runs", "training runs")("list", "list the runs under the runs root", settings=True)

    head = group("cluster", "a local Ray head with token authentication")
    head("start", "start a head, with a token, and with dashboard and Jobs API on loopback", _head, _start)
    head("stop", "stop the head and its jobs", _head)
    head("status", "show its addresses, nodes and resources", _head)
    head("clean", "remove language models that runs have left on it", _head, _clean, settings=True)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse; settings (`dotted.key=value`) may stand before and after options."""
    args, rest = parser.parse_known_args(argv)
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(settings) < len(rest) or (rest and not hasattr(args, "overrides")):
        strange = [word for word in rest if word not in settings] or rest
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if hasattr(args, "overrides"):
        args.overrides = [*args.overrides, *settings]
    return args


def _leaf(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    verb: str,
    what: str,
    add: Sequence[Add],
    settings: bool,
) -> None:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    for add_options in add:
        add_options(parser)
    if settings:
        parser.add_argument(
            "--config",
            action="append",
            default=[],
            metavar="PROFILE",
            help="YAML file, or a profile of this package (local, one_gpu, ...); may be repeated",
        )
        parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="settings; they win over profiles")
    parser.add_argument("--verbose", action="store_true", help="log more")
    parser.set_defaults(verb=verb.replace("-", "_"))


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, or the name of a run under the runs root")


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="continue this run with its own settings; auto: continue the run called name=..., or start it",
    )


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--agent",
        action="append",
        required=True,
        metavar="AGENT",
        help=f"may be repeated: all play the same scenarios and are compared with the first; {AGENTS}",
    )
    parser.add_argument("--env", metavar="NAME", help="Grid2Op environment (default: setting grid.env)")
    parser.add_argument("--data", metavar="DIR", help="folder of chronics, or 'shipped' (default: setting grid.data)")
    parser.add_argument("--scenarios", help=f"{SCENARIOS} (default: setting evaluation.scenarios)")
    parser.add_argument(
        "--until-halfwidth",
        type=_points,
        metavar="P",
        help="add environment seeds until the 95 %% interval of survival (with several agents: of each difference from "
        "the first) is at most P points to either side",
    )
    parser.add_argument(
        "--most", type=_positive, default=800, metavar="N", help="scenarios at which that ends (default: 800)"
    )
    parser.add_argument("--processes", type=_positive, help="worker processes (default: setting evaluation.processes)")
    parser.add_argument("--json", type=writable_file, metavar="FILE", help="write the result here")
    parser.add_argument("--parquet", type=writable_file, metavar="FILE", help="write one row per episode here")
    parser.add_argument(
        "--scores",
        type=writable_folder,
        metavar="DIR",
        help="also compute the L2RPN 2020 and 2022 scores; DIR caches their statistics",
    )
    parser.add_argument(
        "--episodes", type=writable_folder, metavar="DIR", help="save every episode as Grid2Op EpisodeData in DIR/AGENT"
    )
    parser.add_argument(
        "--figure",
        type=writable_file,
        metavar="PNG",
        help="draw the grid before and after an action of the first scenario",
    )
    parser.add_argument(
        "--figure-step", type=int, metavar="N", help="step whose action is drawn (default: the first decision)"
    )


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULT.json",
        help="written by ace evaluate --json on the same scenarios; the first is what the others are compared with",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--json", type=writable_file, metavar="FILE", help="write the differences here")


def _finetune(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("--role", choices=("actor", "critic"), default="actor", help="whose adapter (default: actor)")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="settings; they win over the run's")


def _export(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("folder", type=writable_folder, metavar="DIR", help="new folder; holds make_agent(env, path)")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def _build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="folder of labels; labelling resumes (needed by all stages but replay and critic)",
    )
    parser.add_argument("--out", type=writable_folder, required=True, metavar="DIR", help="model folder to write")
    parser.add_argument(
        "--stage",
        choices=("labels", "plant", "files", "train", "critic", "card", "all", "decisions", "describe", "replay"),
        default="all",
        help="one stage (default: the first six); plant: episodes with injected mistakes for the critic, from the "
        "labels; critic: the critic's adapter that ships with the model, then the card; decisions: label only until "
        "there are enough decisions for gate and seed files, then write files and card; describe: rewrite the texts of "
        "existing labels, then files and card; replay: replay the decisions of gate and seed files with the present "
        "engine, drop those that are not pivotal or salvageable with it, then the card",
    )
    parser.add_argument("--processes", type=_positive, default=2, help="processes that label and replay (default: 2)")
    parser.add_argument("--label-minutes", type=float, metavar="MIN", help="time for labelling (default: 60 for all)")
    parser.add_argument("--train-minutes", type=float, metavar="MIN", help="stop training the model after this time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the model is trained")


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (default: 8000)")


def _ask(parser: argparse.ArgumentParser) -> None:
    _grid(parser)
    parser.add_argument(
        "--scenario", default="test:1", help="scenario set; its first scenario is played greedily (default: test:1)"
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="first decision at or after step N (default: one that can still be saved)"
    )
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="adapter version, such as RUN/adapters/actor-v1")


def _grid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", metavar="NAME", help="Grid2Op environment (default: setting grid.env)")
    parser.add_argument("--data", metavar="DIR", help="folder of chronics, or 'shipped' (default: setting grid.data)")


def _eval(parser: argparse.ArgumentParser) -> None:
    _grid(parser)
    parser.add_argument("--states", type=int, default=500, metavar="N", help="decisions asked about (default: 500)")
    parser.add_argument(
        "--split", choices=("validation", "test"), default="test", help="scenarios that they come from (default: test)"
    )
    parser.add_argument(
        "--states-dir",
        type=writable_folder,
        metavar="DIR",
        help="folder that keeps the replayed states (default: llm-states under the runs root)",
    )
    parser.add_argument(
        "--minutes", type=float, default=240.0, metavar="MIN", help="time for replaying states (default: 240)"
    )
    parser.add_argument("--processes", type=_positive, default=2, help="processes that replay states (default: 2)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="adapter version, such as RUN/adapters/actor-v1")
    parser.add_argument("--json", type=writable_file, metavar="FILE", help="write the result here")


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=int, default=3, metavar="N", help="refinements shown in full (default: 3)")


def _repeats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", metavar="NAME", help="Grid2Op environment (default: setting grid.env)")
    parser.add_argument("--states", type=int, default=20, help="critical states measured (default: 20)")
    parser.add_argument(
        "--exhaustive",
        type=int,
        default=3,
        help="states of each kind on which every action gets an AC power flow (default: 3)",
    )
    parser.add_argument("--json", type=writable_file, metavar="FILE", help="write the result here")


def _rollout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", metavar="NAME", help="Grid2Op environment (default: setting grid.env)")
    parser.add_argument("--scenarios", default="train:2", help=f"{SCENARIOS} (default: train:2)")
    parser.add_argument(
        "--llm-latency",
        type=_latency,
        metavar="SECONDS",
        help="instead measure what a refiner costs the worker beside it; its questions are answered after SECONDS, "
        "or by the real model ('engine')",
    )
    parser.add_argument("--json", type=writable_file, metavar="FILE", help="write the result here")


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = 0.0
    if not 0 < points <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of percentage points")
    return points


def _latency(text: str) -> float | str:
    if text == "engine":
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of seconds nor 'engine'")
    return seconds


def _seconds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure (default: 20 s)")


def _requests(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=64, help="requests sent at once (default: 64)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each reply (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions; the median is reported (default: 3)")
    parser.add_argument(
        "--model-size", choices=MODEL_SIZES, help="a model of random weights instead of llm.engine.model"
    )
    parser.add_argument("--json", type=writable_file, metavar="FILE", help="write the result here")


def _trained(prefix: str) -> Add:
    def options(parser: argparse.ArgumentParser) -> None:
        ends = parser.add_mutually_exclusive_group()
        ends.add_argument("--decisions", type=int, default=4000, help="decisions of each run (default: 4000)")
        ends.add_argument(
            "--minutes", type=float, metavar="MIN", help="compare at the same wall time instead: minutes of each run"
        )
        parser.add_argument("--scenarios", default="test:16", help=f"{SCENARIOS} (default: test:16)")
        parser.add_argument("--prefix", default=prefix, help=f"names of the runs: PREFIX-llm, ... (default: {prefix})")

    return options


def _grids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=writable_folder, required=True, metavar="DIR", help="folder of results; existing ones are kept"
    )
    parser.add_argument(
        "--env", action="append", metavar="NAME", help="a grid; may be repeated (default: all known grids)"
    )
    parser.add_argument("--agent", action="append", help=f"may be repeated (default: the simple ones); {AGENTS}")
    parser.add_argument("--scenarios", help=f"{SCENARIOS} (default: twelve of each grid)")
    parser.add_argument("--processes", type=_positive, help="worker processes (default: setting evaluation.processes)")


def _drills(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agent", action="append", metavar="AGENT", help=f"may be repeated; {AGENTS}")
    parser.add_argument(
        "--reference",
        default="greedy",
        metavar="AGENT|FILE",
        help="what the agents are compared with: an agent, which is played as well, or the AGENT.parquet that it "
        "left in an earlier --output (default: greedy)",
    )
    parser.add_argument(
        "--bank",
        default="attack",
        metavar="FAMILY|FILE",
        help="attack, load-rise, or the file of a bank (default: attack)",
    )
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), help="of a bank of this package (default: validation)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="the first N drills of the bank (default: all)")
    parser.add_argument(
        "--lines",
        type=_lines,
        default=(),
        metavar="L,L,...",
        help="lose these lines in turn, such as 45,56 (default: those of the bank, drawn by the opponent's rule)",
    )
    parser.add_argument("--workers", type=_positive, help="worker processes (default: setting evaluation.processes)")
    parser.add_argument("--json", type=writable_file, metavar="FILE", help="write the result here")
    parser.add_argument(
        "--output",
        type=writable_folder,
        metavar="DIR",
        help="write AGENT.parquet, one row a drill, for each agent, and drills.md here",
    )
    parser.add_argument(
        "--make-bank",
        type=writable_folder,
        metavar="DIR",
        help="play nothing; draw the banks of the family --bank (of --split alone if it is given) into DIR",
    )
    parser.add_argument("--seed", type=int, default=0, help="of --make-bank (default: 0)")


def _lines(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of lines such as 45,56")
    return tuple(int(word) for word in text.split(","))


def _head(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--temp-dir", type=Path, metavar="DIR", help="the head's folder (default: /tmp/ace-ray-UID)")


def _clean(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unknown",
        action="store_true",
        help="remove also those of which nothing tells whether their run is alive, because its folder is not seen "
        "from here or because another version of ace deployed them",
    )


def _start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-cpus", type=int, help="CPUs that the head announces (default: all usable ones)")
    parser.add_argument("--num-gpus", type=int, default=0, help="GPUs that it announces (default: 0)")
    parser.add_argument("--object-store-mb", type=int, help="object store (default: setting resources.object_store_mb)")
    parser.add_argument("--port", type=int, default=6379, help="Ray's own port (default: 6379)")
    parser.add_argument("--dashboard-port", type=int, default=8265, help="dashboard and Jobs API (default: 8265)")
    parser.add_argument("--metrics-port", type=int, default=8080, help="Prometheus metrics (default: 8080)")
