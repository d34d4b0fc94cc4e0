"""Which attacks of other libraries ours are compared with, and with which budgets: the same for all of a contest."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from algorithms.attacks import Attack
from algorithms.attacks.apgd import APGD
from algorithms.attacks.carlini_wagner import CarliniWagner
from algorithms.attacks.ddn import DDN
from algorithms.attacks.deepfool import DeepFool
from algorithms.attacks.ead import EAD
from algorithms.attacks.fab import FAB
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.fmn import FMN
from algorithms.attacks.pdgd import PDGD
from algorithms.attacks.pdpgd import PDPGD
from algorithms.attacks.pgd import PGD
from algorithms.attacks.sigma_zero import SigmaZero
from algorithms.attacks.square import Square
from algorithms.balls import Norm
from benchmarks.rivals import ORDER, Contestant, adv_lib, art, foolbox, torchattacks

EPS, STEP = 0.3, 0.03  # in l-infinity
L2, L1 = 2.0, 10.0  # radii
QUERIES, SEARCHES = 100, 2
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")


class Contest(NamedTuple):
    """One of our attacks, and others' of the same name."""

    name: str
    ours: Attack
    theirs: dict[str, Contestant]  # by library


def budget() -> list[Contest]:
    """Attacks within a radius."""
    return [
        Contest(
            "FGSM",
            FGSM(eps=EPS),
            {
                "foolbox": foolbox("LinfFastGradientAttack", EPS),
                "torchattacks": torchattacks("FGSM", eps=EPS),
                "ART": art("FastGradientMethod", eps=EPS),
            },
        ),
        Contest(
            "PGD-20 linf",
            PGD(eps=EPS, step_size=STEP, steps=20),
            {
                "adv-lib": adv_lib("pgd_linf", EPS, steps=20, absolute_step_size=STEP),
                "foolbox": foolbox("LinfPGD", EPS, steps=20, abs_stepsize=STEP),
                "torchattacks": torchattacks("PGD", eps=EPS, alpha=STEP, steps=20),
                "ART": art("ProjectedGradientDescentPyTorch", eps=EPS, eps_step=STEP, max_iter=20, num_random_init=1),
            },
        ),
        Contest(
            "PGD-20 l2",
            PGD(norm="l2", eps=L2, step_size=0.25, steps=20),
            {
                "foolbox": foolbox("L2PGD", L2, steps=20, abs_stepsize=0.25),
                "torchattacks": torchattacks("PGDL2", eps=L2, alpha=0.25, steps=20),
            },
        ),
        Contest(
            "PGD-20 l1",
            PGD(norm="l1", eps=L1, step_size=1.0, steps=20),
            {"foolbox": foolbox("SparseL1DescentAttack", L1, steps=20, abs_stepsize=1.0, random_start=True)},
        ),
        Contest(
            "APGD-50 linf",
            APGD(eps=EPS, steps=50),
            {
                "adv-lib": adv_lib("apgd", EPS, inf, n_iter=50, loss_function="ce"),
                "torchattacks": torchattacks("APGD", norm="Linf", eps=EPS, steps=50),
                "ART": art("AutoProjectedGradientDescent", eps=EPS, eps_step=2 * EPS, max_iter=50, nb_random_init=1),
            },
        ),
        Contest(
            "APGD-50 l2",
            APGD(norm="l2", eps=L2, steps=50),
            {
                "adv-lib": adv_lib("apgd", L2, 2, n_iter=50, loss_function="ce"),
                "torchattacks": torchattacks("APGD", norm="L2", eps=L2, steps=50),
            },
        ),
        Contest(
            "APGD-50 l1",
            APGD(norm="l1", eps=L1, steps=50),
            {"adv-lib": adv_lib("apgd", L1, 1, n_iter=50, loss_function="ce", use_large_reps=True)},
        ),
        Contest(
            f"Square-{QUERIES}",
            Square(eps=EPS, steps=QUERIES),
            {
                "torchattacks": torchattacks("Square", eps=EPS, n_queries=QUERIES),
                "ART": art("SquareAttack", eps=EPS, max_iter=QUERIES),
            },
        ),
    ]


def minimal() -> list[Contest]:
    """Attacks for the smallest norm."""
    each = {"binary_search_steps": SEARCHES, "initial_const": 1.0}
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
        ),
        Contest(
            "DeepFool linf",
            DeepFool(norm="linf", steps=50),
            {
                "adv-lib": adv_lib("df", steps=50, norm=inf),
                "foolbox": foolbox("LinfDeepFoolAttack", steps=50),
            },
        ),
        Contest(
            "DDN-100",
            DDN(steps=100),
            {
                "adv-lib": adv_lib("ddn", steps=100, levels=None),
                "foolbox": foolbox("DDNAttack", steps=100),
            },
        ),
        Contest(
            f"C&W l2, {SEARCHES} x 100",
            CarliniWagner(steps=100 * SEARCHES, searches=SEARCHES, worth=1.0, step_size=0.05),
            {
                "adv-lib": adv_lib("carlini_wagner_l2", max_iterations=100, learning_rate=0.05, **each),
                "foolbox": foolbox("L2CarliniWagnerAttack", steps=100, stepsize=0.05, **each),
            },
        ),
        Contest(
            f"EAD, {SEARCHES} x 100",
            EAD(steps=100 * SEARCHES, searches=SEARCHES, worth=1.0),
            {
                "foolbox": foolbox("EADAttack", steps=100, decision_rule="L1", regularization=0.01, **each),
                "torchattacks": torchattacks("EADL1", max_iterations=100, beta=0.01, **each),
            },
        ),
        *(
            Contest(
                f"FAB-20 {norm}",
                FAB(norm=norm, steps=20),
                {"adv-lib": adv_lib("fab", ORDER[norm], n_iter=20)} | others,
            )
            for norm, others in (
                ("linf", {"torchattacks": torchattacks("FAB", norm="Linf", eps=1.0, steps=20)}),
                ("l2", {"torchattacks": torchattacks("FAB", norm="L2", eps=100.0, steps=20)}),
                ("l1", {}),  # torchattacks' raises an UnboundLocalError
            )
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
        Contest("sigma-zero-100", SigmaZero(steps=100), {"adv-lib": adv_lib("sigma_zero", num_steps=100)}),
        Contest("PDGD-100", PDGD(steps=100), {"adv-lib": adv_lib("pdgd", num_steps=100)}),
        *(
            Contest(
                f"PDPGD-100 {norm}",
                PDPGD(norm=norm, steps=100),
                {"adv-lib": adv_lib("pdpgd", ORDER[norm], num_steps=100, primal_lr=rate, proximal_operator=operator)},
            )
            for norm, rate, operator in (("linf", 0.1, None), ("l1", 1.0, None), ("l0", 1.0, 23))
        ),
    ]
