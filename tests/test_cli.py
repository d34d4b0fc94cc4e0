"""The command line: what it prints where, what it ends with, and how fast its help may be."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import orchestrator
from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from orchestrator import catalogue
from orchestrator.cli import app
from orchestrator.config import load_recipe, recipe_from
from orchestrator.folders import RunFolder
from orchestrator.listener import Listener
from orchestrator.loop import Interrupted
from orchestrator.progress import Bars, Lines
from orchestrator.recipe import Recipe

DIGITS = str(Path(__file__).parents[1] / "recipes" / "digits-pgd.toml")
ONE_OF_THEM = "give a recipe, such as recipes/digits-pgd.toml, or --resume RUN; one of them\n"
COMMANDS = sorted(path.stem for path in Path(catalogue.HOME, "orchestrator/commands").glob("[!_]*.py"))


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sparring(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="sparring")


# Help and lists


@pytest.mark.parametrize("typed", ["['--help']", "['--version']", "['train', '--help']", "['list']"])
def test_help_and_lists_import_nothing_heavy(typed: str) -> None:
    code = f"""if True:
        import sys
        from orchestrator.cli import app
        try:
            app({typed}, prog_name="sparring")
        except SystemExit as end:
            assert end.code == 0, end.code
        print(sorted({{"torch", "ray", "mlflow", "numpy", "matplotlib"}} & set(sys.modules)), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert done.stdout


def test_help_names_every_command_and_the_exit_codes() -> None:
    said = sparring("--help").stdout
    assert all(command in said for command in COMMANDS)
    assert "Exit codes" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_shared_options(command: str) -> None:
    done = sparring(command, "--help")
    assert done.exit_code == 0
    assert all(option in done.stdout for option in ("--json", "--quiet", "--debug"))


def test_lists_know_every_plug_in_and_say_what_it_is() -> None:
    listed = json.loads(sparring("list", "--json").stdout)
    assert list(listed) == catalogue.kinds()
    assert list(listed["attacks"]) == plugins.names(Attack)
    assert listed["attacks"]["pgd"].startswith("Projected gradient descent (Madry et al. 2018")
    assert "demo" in listed["suites"]
    for entries in listed.values():
        assert all(about.strip() for about in entries.values()), entries


def test_a_list_is_a_line_each() -> None:
    lines = sparring("list", "attacks").stdout.splitlines()
    assert [line.split()[0] for line in lines] == plugins.names(Attack)


def test_an_unknown_list_is_wrong_usage() -> None:
    done = sparring("list", "atacks")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "did you mean 'attacks'?" in done.stderr


def test_the_schema_is_json() -> None:
    assert json.loads(sparring("schema").stdout)["title"] == "Sparring recipe"


# Recipes and errors


def test_a_dry_run_prints_a_recipe_that_reads_back() -> None:
    done = sparring("train", DIGITS, "defense.attack.steps=20", "workers.attackers=4", "--dry-run")
    assert done.exit_code == 0
    recipe = recipe_from(tomllib.loads(done.stdout))
    assert recipe == load_recipe(DIGITS, ["defense.attack.steps=20", "workers.attackers=4"])
    assert recipe.workers.attackers == 4
    assert not list(Path.cwd().iterdir()), "a dry run leaves nothing"


def test_a_dry_run_in_json() -> None:
    done = sparring("train", DIGITS, "seed=7", "--dry-run", "--json")
    assert recipe_from(json.loads(done.stdout)).seed == 7


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["train", "no.toml"], "no.toml: no such file; recipes there: none\n"),
        (["train", DIGITS, "train.epochs=ten"], "command line: train.epochs: a whole number, not 'ten'\n"),
        (["train"], ONE_OF_THEM),
        (["train", DIGITS, "--resume", "x"], ONE_OF_THEM),
        (["train", "--resume", "x"], "no run 'x' here or in runs; runs there: none yet\n"),
        (["evaluate", "x"], "no run 'x' here or in runs; runs there: none yet\n"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(typed: list[str], said: str) -> None:
    done = sparring(*typed)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", said)
    in_json = sparring(*typed, "--json")
    assert json.loads(in_json.stdout) == {"error": said.strip(), "exit_code": 2}
    assert isinstance(sparring(*typed, "--debug").exception, ValueError)


def test_unknown_options_and_commands_are_wrong_usage() -> None:
    assert sparring("train", "--nosuch").exit_code == 2
    assert sparring("trian").exit_code == 2


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Interrupted("stopped after step 3 of 9"), 3, "stopped after step 3 of 9, with a checkpoint; the same command"),
        (KeyboardInterrupt(), 130, "stopped at once; the same command goes on from the newest checkpoint"),
        (FloatingPointError("step 3, shard 1: NaN"), 1, "step 3, shard 1: NaN"),
        (RuntimeError("the trainer was lost"), 1, "the trainer was lost"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (FileNotFoundError("no data"), 2, "no data"),
        (ValueError("two\nlines"), 2, "two lines"),
        (KeyError("x"), 1, "a bug: KeyError: 'x'; --debug shows where"),
        (Exception("the node timed out"), 1, "the node timed out"),
    ],
)
def test_exit_codes_say_what_happened(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(recipe: Recipe, resume: str | None, listener: Listener) -> NoReturn:
        sys.stdout.write("what a library prints\n")
        raise error

    monkeypatch.setattr("orchestrator.run.train", fail)
    done = sparring("train", DIGITS)
    assert done.exit_code == code
    assert done.stderr.startswith(said)
    in_json = sparring("train", DIGITS, "--json")
    assert in_json.exit_code == code
    assert json.loads(in_json.stdout)["exit_code"] == code
    assert "what a library prints" in in_json.stderr


def test_progress_goes_to_stderr_unless_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(recipe: Recipe, resume: str | None, listener: Listener) -> NoReturn:
        listener.say("hello")
        raise ValueError("enough")

    monkeypatch.setattr("orchestrator.run.train", speak)
    assert sparring("train", DIGITS).stderr == "hello\nenough\n"
    assert sparring("train", DIGITS, "--quiet").stderr == "enough\n"


# A run


def test_a_run_and_its_evaluation() -> None:
    quick = ["train.epochs=1", "workers.backend=inline", "evaluation.examples=16", "defense.attack.steps=1"]
    trained = sparring("train", DIGITS, *quick, "--json", "--quiet")
    assert trained.exit_code == 0, trained.stderr
    run = json.loads(trained.stdout)
    assert Path(run["folder"]).parent == Path("runs").resolve()
    assert run["evaluation"]["eps"] == 0.2
    assert run["resumed"] is False
    evaluated = sparring("evaluate", run["run"], "--eps", "8/255", "--examples", "8", "--suite", "quick", "--json")
    assert evaluated.exit_code == 0, evaluated.stderr
    outcome = json.loads(evaluated.stdout)
    assert (outcome["suite"], outcome["eps"], outcome["examples"]) == ("quick", 8 / 255, 8)
    again = sparring("train", "--resume", run["run"], "--dry-run")
    assert recipe_from(tomllib.loads(again.stdout)) == load_recipe(DIGITS, quick)
    for option, said in (("--norm", "command line: norm: 'linf'"), ("--eps", "command line: eps: a number, or a frac")):
        wrong = sparring("evaluate", run["run"], option, "much")
        assert wrong.exit_code == 2
        assert wrong.stderr.startswith(said)
    human = sparring("evaluate", str(RunFolder.find(run["run"]).path), "--examples", "8", "--suite", "quick")
    assert "worst case" in human.stdout


# Progress


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_ten_seconds_with_the_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.begin("training", 100, "steps")
    for second in range(1, 31):
        clock.now = float(second)
        lines.advance("training", 2 * second, f"note {second}")
    lines.end("training")
    lines.say("a worker was replaced")
    assert stream.getvalue() == (
        "training: 20 of 100 steps, 40 s left, note 10\n"
        "training: 40 of 100 steps, 30 s left, note 20\n"
        "training: 60 of 100 steps, 20 s left, note 30\n"
        "a worker was replaced\n"
    )


def test_lines_know_minutes_hours_and_a_run_that_goes_on() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.begin("training", 10_000, "steps")
    lines.advance("training", 5000)  # resumed here: these steps took no time
    clock.now = 10.0
    lines.advance("training", 5010)
    clock.now = 1000.0
    lines.advance("training", 9000)
    lines.begin("training", 10_000, "steps")  # once more, from a checkpoint
    lines.advance("training", 8000)
    clock.now = 1010.0
    lines.advance("training", 8500)
    assert stream.getvalue() == (
        "training: 5010 of 10000 steps, 83 min left\n"
        "training: 9000 of 10000 steps, 4 min left\n"
        "training: 8500 of 10000 steps, 30 s left\n"
    )


def test_bars_show_counts_and_notes() -> None:
    screen = io.StringIO()
    bars = Bars(Console(file=screen, force_terminal=True, width=120))
    with bars.progress:
        bars.begin("training", 10, "steps")
        bars.advance("training", 4, "loss 1.5; worker 3 is behind [slow]")
        bars.progress.refresh()
        shown = screen.getvalue()
        bars.say("a worker was [replaced]")
        bars.advance("training", 10)
        bars.end("training")
    assert all(part in shown for part in ("training", "4/10", "steps", "worker 3 is behind [slow]"))
    assert "a worker was [replaced]" in screen.getvalue()
    assert "10/10" in screen.getvalue()


# From Python


def test_the_package_exports_what_it_says() -> None:
    exported: dict[str, Any] = {name: getattr(orchestrator, name) for name in orchestrator.__all__}
    assert exported["Recipe"] is Recipe
    assert exported["Recipe"].load(DIGITS, ["defense.attack.steps=3"]).defense.attack == PGD(
        eps=0.2, step_size=0.05, steps=3
    )
    with pytest.raises(AttributeError, match="it has Recipe, diagnose, evaluate, train"):
        _ = orchestrator.trian
