"""Contests for the smallest norm. Medians are quoted, and on how many images an attack failed."""

from __future__ import annotations

import dataclasses
from math import inf
from typing import Any, Literal

from algorithms.attacks.boundary import Boundary
from algorithms.attacks.carlini_wagner import CarliniWagner
from algorithms.attacks.ddn import DDN
from algorithms.attacks.deepfool import DeepFool
from algorithms.attacks.ead import EAD
from algorithms.attacks.fab import FAB
from algorithms.attacks.fmn import FMN
from algorithms.attacks.jsma import JSMA
from algorithms.attacks.pdgd import PDGD
from algorithms.attacks.pdpgd import PDPGD
from algorithms.attacks.sigma_zero import SigmaZero
from algorithms.balls import Norm
from benchmarks.contests import Contest
from benchmarks.rivals import ORDER, adv_lib, art, foolbox, torchattacks

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
SLOW = 16  # images of a contest with somebody who takes one at a time
FEWER = {"EAD, 4 x 100": 200, "FMN-100 l2": 50, "FMN-100 l1": 80, "FMN-100 l0": 50, "PDPGD-500 linf": 300}


def contests() -> list[Contest]:
    """All of them, by attack, and with fewer steps."""
    found = [*linear(), *penalised(), *radial(), *sparse(), *primal_dual(), *along_the_boundary()]
    return found + [with_fewer(contest, FEWER[contest.name]) for contest in found if contest.name in FEWER]


def with_fewer(contest: Contest, steps: int) -> Contest:
    """Ours with fewer steps against all of theirs: in how much of the time it is still as strong."""
    ours: Any = contest.ours
    return contest._replace(name=f"{contest.name}, ours {steps}", ours=dataclasses.replace(ours, steps=steps))


def linear() -> list[Contest]:
    """DeepFool and its descendants, which step to linearised boundaries."""
    fab = {
        "linf": {"torchattacks": torchattacks("FAB", norm="Linf", eps=1.0, steps=20)},
        "l2": {"torchattacks": torchattacks("FAB", norm="L2", eps=100.0, steps=20)},
        "l1": {},  # torchattacks' raises an UnboundLocalError
    }
    norms: tuple[Literal["linf", "l2", "l1"], ...] = ("linf", "l2", "l1")
    return [
        Contest(
            "DeepFool l2",
            DeepFool(steps=50),
            {
                "adv-lib": adv_lib("df", steps=50),
                "foolbox": foolbox("L2DeepFoolAttack", steps=50),
                "torchattacks": torchattacks("DeepFool", steps=50),
                "ART": art("DeepFool", max_iter=50, epsilon=0.02),
            },
            images=SLOW,
        ),
        Contest(
            "DeepFool linf",
            DeepFool(norm="linf", steps=50),
            {
                "adv-lib": adv_lib("df", steps=50, norm=inf),
                "foolbox": foolbox("LinfDeepFoolAttack", steps=50),
            },
            images=64,
        ),
        *(
            Contest(
                f"FAB-20 {norm}",
                FAB(norm=norm, steps=20),
                {"adv-lib": adv_lib("fab", ORDER[norm], n_iter=20)} | fab[norm],
                images=SLOW,
            )
            for norm in norms
        ),
    ]


def penalised() -> list[Contest]:
    """Carlini and Wagner's attack and EAD, which search for a worth. ART's take seventeen times as long: left out."""
    each: dict[str, Any] = {"initial_const": 1.0}
    return [
        Contest(
            "C&W l2, 2 x 100",
            CarliniWagner(steps=200, searches=2, worth=1.0, step_size=0.05),
            {
                "adv-lib": adv_lib(
                    "carlini_wagner_l2", max_iterations=100, learning_rate=0.05, binary_search_steps=2, **each
                ),
                "foolbox": foolbox("L2CarliniWagnerAttack", steps=100, stepsize=0.05, binary_search_steps=2, **each),
            },
        ),
        Contest(
            "EAD, 4 x 100",
            EAD(steps=400, searches=4, worth=1.0),
            {
                "foolbox": foolbox(
                    "EADAttack", steps=100, decision_rule="L1", regularization=0.01, binary_search_steps=4, **each
                ),
                "torchattacks": torchattacks("EADL1", max_iterations=100, beta=0.01, binary_search_steps=4, **each),
            },
        ),
    ]


def radial() -> list[Contest]:
    """DDN and FMN, whose points keep to a sphere that grows and shrinks."""
    return [
        Contest(
            "DDN-100",
            DDN(steps=100),
            {"adv-lib": adv_lib("ddn", steps=100, levels=None), "foolbox": foolbox("DDNAttack", steps=100)},
            images=64,
        ),
        *(
            Contest(
                f"FMN-100 {norm}",
                FMN(norm=norm, steps=100),
                {
                    "adv-lib": adv_lib("fmn", ORDER[norm], steps=100),
                    "foolbox": foolbox(f"{'LInf' if norm == 'linf' else norm.upper()}FMNAttack", steps=100),
                },
            )
            for norm in NORMS
        ),
    ]


def sparse() -> list[Contest]:
    """Attacks that change few pixels. Both of JSMA have one aim: ours the likeliest class, theirs the next label.

    torchattacks' SparseFool takes a hundred times as long as ours, a minute for an image: left out.
    """
    return [
        Contest("sigma-zero-100", SigmaZero(steps=100), {"adv-lib": adv_lib("sigma_zero", num_steps=100)}, images=64),
        Contest(
            "JSMA, one aim",
            JSMA(direction="up", share=0.1, rivals=1),
            {"torchattacks": torchattacks("JSMA", theta=1.0, gamma=0.1)},
            images=32,
        ),
    ]


def primal_dual() -> list[Contest]:
    """The thesis's own. Pixels are whole numbers: with few images a median of them is chance."""
    rates: tuple[tuple[Norm, float, float | None], ...] = (("linf", 0.1, None), ("l1", 1.0, None), ("l0", 1.0, 23))
    return [
        Contest("PDGD-100", PDGD(steps=100), {"adv-lib": adv_lib("pdgd", num_steps=100)}, images=64),
        *(
            Contest(
                f"PDPGD-500 {norm}",
                PDPGD(norm=norm),
                {"adv-lib": adv_lib("pdpgd", ORDER[norm], num_steps=500, primal_lr=rate, proximal_operator=operator)},
                images=48,
            )
            for norm, rate, operator in rates
        ),
    ]


def along_the_boundary() -> list[Contest]:
    """Attacks that ask for nothing but the class, and begin at noise: ours at uniform, theirs at salt and pepper.

    Uniform noise, theirs if nothing is said, is one class to a robust network: rows of that class have no start.
    Foolbox's Brendel-Bethge is left out: its numba code compiles for longer than all other contests take.
    """
    theirs = foolbox("BoundaryAttack", start="SaltAndPepperNoiseAttack", steps=1000)
    return [Contest("Boundary-1000", Boundary(steps=1000), {"foolbox": theirs}, images=SLOW)]
