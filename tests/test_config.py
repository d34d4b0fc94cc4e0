"""Recipes between text and values: what is wrong is said in one line, and nothing is lost on the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.standard import Standard
from algorithms.updates.adam import Adam
from orchestrator.config import RecipeError, load_recipe
from orchestrator.config.text import LARGEST, parse_override
from orchestrator.recipe import Recipe, Train, Workers

TOP = (
    "name, seed, dataset, augmentation, model, defense, update, train, validation, convergence, workers, evaluation, "
    "tracking"
)
ADVERSARIAL = 'defense = {name = "adversarial", attack = {name = "pgd", eps = "8/255"}}\n'


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problem(text: str, *overrides: str) -> str:
    """What is said about a recipe called my.toml."""
    Path("my.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("my.toml", overrides)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    return said


WRONG = {
    "unknown key": ("[train]\nepoch = 5", "train.epoch: no such key; did you mean 'epochs'? keys there: "),
    "a key of a section, at the top": (
        "epochs = 5",
        f"epochs: no such key; did you mean 'train.epochs'? keys there: {TOP}",
    ),
    "unknown, like nothing": ("colour = 1", f"colour: no such key; keys there: {TOP}"),
    "unknown section": ("[trian]\nepochs = 1", f"trian: no such key; did you mean 'train'? keys there: {TOP}"),
    "key of another plug-in": (
        '[defense]\nname = "standard"\nclean_weight = 1',
        "defense.clean_weight: no such key in standard; it has none",
    ),
    "unknown plug-in": (
        '[defense]\nname = "adversaril"',
        "defense.name: no defense is called 'adversaril'; did you mean 'adversarial'? there are: ",
    ),
    "a plug-in as a path": (
        'dataset = "../../digits"',
        "dataset: no dataset is called '../../digits'; did you mean 'digits'? there are: ",
    ),
    "plug-in as a number": ("defense = 5", "defense: a defense (a name, or a table with a name), not 5"),
    "name as a number": ("[defense]\nname = 5", "defense.name: a text in quotes, not 5"),
    "text for a whole number": ('[train]\nepochs = "ten"', "train.epochs: a whole number, not 'ten'"),
    "fraction for a whole number": ("[train]\nepochs = 3.0", "train.epochs: a whole number, not 3.0"),
    "truth for a whole number": ("[train]\nepochs = true", "train.epochs: a whole number, not true"),
    "date for a whole number": ("[train]\nepochs = 1979-05-27", "train.epochs: a whole number, not date 1979-05-27"),
    "number for a text": ("name = 5", "name: a text in quotes, not 5"),
    "number for a truth": ("[augmentation]\nflip = 1", "augmentation.flip: true or false, not 1"),
    "text for a number": (
        '[train]\naverage = "0.5"',
        "train.average: a number, or a fraction such as \"8/255\", not '0.5'",
    ),
    "division by zero": (
        '[train]\naverage = "1/0"',
        "train.average: a number, or a fraction such as \"8/255\", not '1/0'",
    ),
    "unknown word": (
        '[workers]\nbackend = "inlin"',
        "workers.backend: 'ray' or 'inline', not 'inlin'; did you mean 'inline'?",
    ),
    "number for a section": ("train = 5", "train: a table, not 5"),
    "list for a section": ("train = [1]", "train: a table, not a list"),
    "table for a number": ("[seed]\na = 1", "seed: a whole number, not a table"),
    "NaN": ("[train]\naverage = nan", "train.average: a finite number, not nan"),
    "infinite": ("[train]\naverage = -inf", "train.average: a finite number, not -inf"),
    "too large": (
        "seed = 100000000000000000000",
        "seed: a whole number of 64 bits at most, not a number of more than 64 bits",
    ),
    "too large to print": (
        f"seed = 0x{'f' * 5000}",
        "seed: a whole number of 64 bits at most, not a number of more than 64 bits",
    ),
    "control character": ('name = "a\\u001bb"', "name: a text without control characters, not 'a\\x1bb'"),
    "control character in a key": ('"a\\nb" = 1', f'"a\\nb": no such key; keys there: {TOP}'),
    "long text": (f'name = "{"x" * 5000}"', "name: a text of 4096 characters at most, not of 5000"),
    "name that leaves its folder": (
        'name = "../x"',
        "name: up to 100 letters, digits, dots, dashes and underscores, not '../x'",
    ),
    "name with a folder in it": (
        'name = "a/b"',
        "name: up to 100 letters, digits, dots, dashes and underscores, not 'a/b'",
    ),
    "out of range": ("[train]\nepochs = 0", "train.epochs: passes over the training examples, at least 1, not 0"),
    "two fields that do not fit": ("[train]\nbatch = 100", "train.shard: a divisor of batch = 100, not 32"),
    "short list": ('[update]\nname = "adam"\nbetas = [0.9]', "update.betas: a list of 2 entries, not of 1"),
    "number for a list": (
        '[update]\nname = "adam"\nbetas = 0.9',
        'update.betas: a list, each entry a number, or a fraction such as "8/255", not 0.9',
    ),
    "wrong entry of a list": (
        '[update]\nname = "adam"\nbetas = [0.9, "x"]',
        "update.betas[1]: a number, or a fraction such as \"8/255\", not 'x'",
    ),
    "duplicate": ("seed = 1\nseed = 2", "not TOML: Cannot overwrite a value (at end of document)"),
    "not TOML": ("seed: 1", "not TOML: Expected '=' after a key in a key/value pair (at line 1, column 5)"),
    "thousands of digits": (
        f"seed = {'9' * 6000}",
        "not TOML: Exceeds the limit (4300 digits) for integer string conversion: value has 6000 digits",
    ),
    "deep list": ("a = " + "[" * 100_000, "tables or lists nested too deeply"),
    "deep table": (f"[{'.'.join('a' * 1000)}]", f"a: no such key; keys there: {TOP}"),
    "file outside": (
        '[tracking]\nfolder = "/etc"',
        "tracking.folder: a path below the current folder or the recipe's, not '/etc'; "
        "if you mean it, give it on the command line: tracking.folder=/etc",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_recipe_is_one_line(case: str) -> None:
    text, expected = WRONG[case]
    said = problem(text).removeprefix("my.toml: ")
    assert said == expected if not expected.endswith(": ") else said.startswith(expected)


def test_a_radius_in_255ths_is_told_its_bounds() -> None:
    said = problem('[defense]\nname = "adversarial"\nattack = {name = "pgd", eps = 8}')
    assert said.startswith("my.toml: defense.attack.eps: a radius in pixel units")
    assert said.endswith(", between 0 and 1, not 8")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train"], "command line: write key=value, such as train.epochs=5, not 'train'"),
        (["=5"], "command line: write key=value, such as train.epochs=5, not '=5'"),
        (["[seed] #=3"], "command line: write key=value, such as train.epochs=5, not '[seed] #=3'"),
        (["a=1\nseed=2"], "command line: write key=value, such as train.epochs=5, not 'a=1\\nseed=2'"),
        (["train.epochs="], "command line: train.epochs: a whole number, not ''"),
        (["seed=1", "seed.x=1"], "command line: seed: 1, which has no keys in it"),
        (["seed.x=1"], "command line: seed: a whole number, not a table"),
        (["train.epoch=1"], "command line: train.epoch: no such key; did you mean 'epochs'? keys there: "),
        (["train.batch=100"], "my.toml: train.shard: a divisor of batch = 100, not 32"),
        (
            ["defense.name=standard"],
            "my.toml: defense.attack: no such key in standard; it has none; "
            "defense=standard instead starts the section afresh",
        ),
        (
            ["update.name=adam", "update.betas=[1, 2]", "update.betas.2=0"],
            "command line: update.betas: a place in a list of 2, from 0, not '2'",
        ),
    ],
)
def test_a_wrong_override_is_one_line(overrides: list[str], expected: str) -> None:
    said = problem(ADVERSARIAL, *overrides)
    assert said == expected if not expected.endswith(": ") else said.startswith(expected)


def loaded(text: str, *overrides: str) -> Recipe:
    Path("my.toml").write_text(text, encoding="utf-8")
    return load_recipe("my.toml", overrides)


def test_an_empty_recipe_is_all_defaults_and_named_after_its_file() -> None:
    assert loaded("") == Recipe(name="my")
    assert Recipe.load("my.toml", ["name=other"]) == Recipe(name="other")


def test_sections_are_the_dataclasses() -> None:
    recipe = loaded(ADVERSARIAL + "[train]\nepochs = 3\naverage = 0\n[update]\nname = 'adam'\nbetas = [0.5, '9/10']")
    assert recipe.defense == Adversarial(attack=PGD(eps=8 / 255))
    assert recipe.train == Train(epochs=3)
    assert recipe.update == Adam(betas=(0.5, 0.9))
    assert isinstance(recipe.train.average, float)


def test_overrides_change_single_fields() -> None:
    recipe = loaded(ADVERSARIAL, "defense.attack.steps=20", "workers.attackers=4", "defense.attack.eps=1/2", "name=a")
    assert recipe.defense == Adversarial(attack=PGD(eps=0.5, steps=20))
    assert recipe.workers == Workers(attackers=4)


def test_an_override_by_name_alone_starts_a_section_afresh() -> None:
    assert loaded(ADVERSARIAL, "defense=standard").defense == Standard()
    assert loaded(ADVERSARIAL, "defense.attack=fgsm", "defense.attack.eps=0.5").defense == Adversarial(
        attack=FGSM(eps=0.5)
    )


def test_an_override_reaches_into_lists_and_beats_earlier_ones() -> None:
    recipe = loaded("", "update=adam", "update.betas=[0.5, 0.6]", "update.betas.1=0.7", "seed=1", "seed=2")
    assert recipe.update == Adam(betas=(0.5, 0.7))
    assert recipe.seed == 2


def test_a_table_without_a_name_changes_the_default() -> None:
    assert loaded("[validation.attack]\nsteps = 3").validation.attack == PGD(steps=3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=5", 5),
        ("a=0.5", 0.5),
        ("a=true", True),
        ("a=pgd", "pgd"),
        ('a="5"', "5"),
        ("a=[1, 2]", [1, 2]),
        ("a=8/255", "8/255"),
        ("a=x=y", "x=y"),
        ("a={b = 1}", {"b": 1}),
    ],
)
def test_an_overrides_value_is_toml_or_else_text(text: str, value: object) -> None:
    assert parse_override(text) == (("a",), value)


def test_an_overrides_key_may_be_quoted() -> None:
    assert parse_override('update.layers."features.0".bound=1') == (("update", "layers", "features.0", "bound"), 1)


def test_a_recipes_file_stays_below_its_folders_unless_the_command_line_says_otherwise() -> None:
    Path("below").mkdir()
    Path("out").symlink_to("/etc")
    assert loaded('[tracking]\nfolder = "below/runs"').tracking.folder == "below/runs"
    for text in ("../x", "~/x", "out/x", "below/../../x"):
        assert "a path below the current folder" in problem(f'[tracking]\nfolder = "{text}"')
        assert loaded(f'[tracking]\nfolder = "{text}"', f"tracking.folder={text}").tracking.folder == text
    assert "a path below" in problem('[tracking]\nuri = "sqlite:////etc/x.db"')
    assert "a path below" in problem('[evaluation]\nsuite = "/etc/suite.toml"')
    assert "a path below" in problem('[dataset]\nname = "parquet"\nfolder = "a\\u0000b"')
    for uri in ("sqlite:///runs/mlflow.db", "http://127.0.0.1:5000"):
        assert loaded(f'[tracking]\nuri = "{uri}"').tracking.uri == uri


def test_hostile_files() -> None:
    Path("binary.toml").write_bytes(b"seed = 1 # \xff")
    Path("large.toml").write_bytes(b"#" * (LARGEST + 1))
    Path("folder.toml").mkdir()
    Path("list.json").write_text("[1]")
    Path("deep.json").write_text("[" * 100_000)
    Path("mark.toml").write_bytes(b"\xef\xbb\xbfseed = 3")
    said = {}
    for name in ("binary.toml", "large.toml", "folder.toml", "list.json", "deep.json", "lage.toml", "no/a.toml", "\0"):
        with pytest.raises(RecipeError) as caught:
            load_recipe(name)
        said[name] = str(caught.value)
    assert said == {
        "binary.toml": "binary.toml: UTF-8 text expected, and byte 11 is not: save the file as UTF-8",
        "large.toml": "large.toml: a recipe of 256 KiB at most, not 256 KiB",
        "folder.toml": "folder.toml: a folder or a device, not a file: name a TOML file",
        "list.json": "list.json: a table, not a list",
        "deep.json": "deep.json: tables or lists nested too deeply",
        "lage.toml": "lage.toml: no such file; did you mean 'large.toml'? recipes there: "
        "binary.toml, folder.toml, large.toml, mark.toml",
        "no/a.toml": "no/a.toml: no such file; recipes there: none",
        "\0": "\0: no such file; recipes there: binary.toml, folder.toml, large.toml, mark.toml",
    }
    assert load_recipe("mark.toml").seed == 3
