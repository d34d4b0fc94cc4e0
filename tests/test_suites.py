"""Suites: what a file says becomes attacks at a radius, and what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from algorithms.attacks.ddn import DDN
from algorithms.attacks.pgd import PGD
from orchestrator import suites
from orchestrator.config import RecipeError


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return str(path)


def test_suites_fill_in_norm_radius_and_relative_lengths(tmp_path: Path) -> None:
    text = """
    about = "one"
    [[attacks]]
    label = "a"
    attack = {name = "pgd", steps = 7, step_size = "2.5 * eps / 7"}
    [[attacks]]
    label = "b"
    attack = {name = "pgd", norm = "linf", eps = "8/255", step_size = 0.25}
    """
    suite = suites.load_suite(written(tmp_path, text), "l2", 0.7)
    assert suite.attacks[0].attack == PGD(norm="l2", eps=0.7, steps=7, step_size=2.5 * 0.7 / 7)
    assert suite.attacks[1].attack == PGD(norm="linf", eps=8 / 255, step_size=0.25)
    assert suite.name == "suite"


def test_an_attack_made_for_one_norm_stays_as_it_is(tmp_path: Path) -> None:
    text = """
    about = "DDN knows l2 alone"
    [[attacks]]
    label = "DDN"
    attack = "ddn"
    """
    assert suites.load_suite(written(tmp_path, text), "linf", 0.3).attacks[0].attack == DDN()


def test_suites_that_come_with_sparring_load() -> None:
    assert {"quick", "demo"} <= set(suites.names())
    for name in suites.names():
        assert suites.about(name)
        assert suites.load_suite(name, "linf", 0.3).attacks
    radii = [entry.eps for entry in suites.load_suite("quick", "linf", 0.8).sweep]
    assert radii == pytest.approx([0.2, 0.4, 0.6, 1.0])  # 1.2 is no radius in l-infinity
    assert {entry.label for entry in suites.load_suite("quick", "linf", 0.8).sweep} >= {"PGD-20 at 0.2"}


ENTRY = '[[attacks]]\nlabel = "a"\nattack = '


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[", "not a TOML file"),
        ('about = ""', "attacks: missing"),
        ('about = ""\nattacks = []', "attacks: one .* table or more"),
        (f'about = ""\n{ENTRY}{{name = "pgq"}}', r"attacks\[0\].attack.name: no attack is called 'pgq'"),
        (f'about = ""\n{ENTRY}{{name = "pgd", step_size = "eps ** 2"}}', r"step_size: a multiple of eps"),
        (f'about = ""\n{ENTRY}{{name = "pgd", step_size = "eps / 0"}}', r"step_size: a multiple of eps"),
        (f'about = ""\n{ENTRY}{{name = "pgd", step_size = "__import__(eps)"}}', r"step_size: a multiple of eps"),
        (f'about = ""\n{ENTRY}{{name = "pgd", stepsize = 1}}', r"stepsize: no such key.*did you mean 'step_size'"),
        (f'about = ""\n{ENTRY}"pgd"\ntargets = 3', r"targets: 0 for an attack that is not targeted"),
        (f'about = ""\n{ENTRY}{{name = "pgd", targeted = true}}', r"targets: how many"),
        (f'about = ""\n{ENTRY}"pgd"\n{ENTRY}"fgsm"', r"'a' is there twice"),
        (f'about = ""\n{ENTRY}"pgd"\n[curve]\nattack = "b"\nradii = []', r"curve: attack is one of a, not 'b'"),
        ('about = ""\n[[attacks]]\nlabel = "clean"\nattack = "pgd"', r"label: what tables call the attack"),
    ],
)
def test_errors_in_suites_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        suites.load_suite(written(tmp_path, text), "linf", 0.3)
    assert "suite.toml" in str(caught.value)


def test_unknown_suites_are_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'quick'"):
        suites.load_suite("quik", "linf", 0.3)
    with pytest.raises(ValueError, match="no such file"):
        suites.load_suite("nowhere.toml", "linf", 0.3)
    with pytest.raises(RecipeError, match="eps"):
        suites.load_suite("quick", "linf", 1.5)
