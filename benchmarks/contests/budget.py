"""Contests within a radius: on a robust network, in the radius that it was trained for and its likes in l2 and l1."""

from __future__ import annotations

from math import inf

from algorithms.attacks.apgd import APGD
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.one_pixel import OnePixel
from algorithms.attacks.pgd import PGD
from algorithms.attacks.spsa import SPSA
from algorithms.attacks.square import Square
from benchmarks.contests import Contest
from benchmarks.rivals import Contestant, adv_lib, art, foolbox, torchattacks

EPS, STEP = 0.3, 0.03  # in l-infinity
L2, L1 = 2.0, 10.0  # radii
QUERIES = 100
PIXELS = 5


def contests() -> list[Contest]:
    """All of them, by attack."""
    return [*fast_gradient(), *projected(), *automatic(), *without_gradients()]


def fast_gradient() -> list[Contest]:
    """FGSM, judged as ever, and as it comes: the others' makes no forward pass at the point that it returns."""
    judging: dict[str, Contestant] = {"foolbox": foolbox("LinfFastGradientAttack", EPS)}
    trusting = {"torchattacks": torchattacks("FGSM", eps=EPS), "ART": art("FastGradientMethod", eps=EPS)}
    return [
        Contest("FGSM", FGSM(eps=EPS), judging | trusting, images=1000),
        Contest("FGSM, not judged", FGSM(eps=EPS), trusting, images=1000, policy="last"),
    ]


def projected() -> list[Contest]:
    """PGD with 20 steps."""
    return [
        Contest(
            "PGD-20 linf",
            PGD(eps=EPS, step_size=STEP, steps=20),
            {
                "adv-lib": adv_lib("pgd_linf", EPS, steps=20, absolute_step_size=STEP),
                "foolbox": foolbox("LinfPGD", EPS, steps=20, abs_stepsize=STEP),
                "torchattacks": torchattacks("PGD", eps=EPS, alpha=STEP, steps=20),
                "ART": art("ProjectedGradientDescentPyTorch", eps=EPS, eps_step=STEP, max_iter=20, num_random_init=1),
            },
            images=100,
            seeds=3,
        ),
        Contest(
            "PGD-20 l2",
            PGD(norm="l2", eps=L2, step_size=0.25, steps=20),
            {
                "foolbox": foolbox("L2PGD", L2, steps=20, abs_stepsize=0.25),
                "torchattacks": torchattacks("PGDL2", eps=L2, alpha=0.25, steps=20),
            },
            images=100,
            seeds=8,
        ),
        Contest(
            "PGD-20 l1",
            PGD(norm="l1", eps=L1, step_size=1.0, steps=20),
            {"foolbox": foolbox("SparseL1DescentAttack", L1, steps=20, abs_stepsize=1.0, random_start=True)},
            images=100,
        ),
    ]


def automatic() -> list[Contest]:
    """APGD with 50 steps."""
    return [
        Contest(
            "APGD-50 linf",
            APGD(eps=EPS, steps=50),
            {
                "adv-lib": adv_lib("apgd", EPS, inf, n_iter=50, loss_function="ce"),
                "torchattacks": torchattacks("APGD", norm="Linf", eps=EPS, steps=50),
                "ART": art("AutoProjectedGradientDescent", eps=EPS, eps_step=2 * EPS, max_iter=50, nb_random_init=1),
            },
            images=64,
        ),
        Contest(
            "APGD-50 linf, DLR",
            APGD(eps=EPS, steps=50, loss="dlr"),
            {
                "adv-lib": adv_lib("apgd", EPS, inf, n_iter=50, loss_function="dlr"),
                "torchattacks": torchattacks("APGD", norm="Linf", eps=EPS, steps=50, loss="dlr"),
            },
            images=100,
            seeds=3,
        ),
        Contest(
            "APGD-50 l2",
            APGD(norm="l2", eps=L2, steps=50),
            {
                "adv-lib": adv_lib("apgd", L2, 2, n_iter=50, loss_function="ce"),
                "torchattacks": torchattacks("APGD", norm="L2", eps=L2, steps=50),
            },
            images=64,
        ),
        Contest(
            "APGD-50 l1",
            APGD(norm="l1", eps=L1, steps=50),
            {"adv-lib": adv_lib("apgd", L1, 1, n_iter=50, loss_function="ce", use_large_reps=True)},
            images=64,
        ),
    ]


def without_gradients() -> list[Contest]:
    """Attacks that ask for logits alone."""
    return [
        Contest(
            f"Square-{QUERIES}",
            Square(eps=EPS, steps=QUERIES),
            {
                "torchattacks": torchattacks("Square", eps=EPS, n_queries=QUERIES),
                "ART": art("SquareAttack", eps=EPS, max_iter=QUERIES),
            },
            images=64,
        ),
        Contest(
            "SPSA, 10 x 64",
            SPSA(eps=EPS, steps=10, samples=32, step_size=STEP),
            {"torchattacks": torchattacks("SPSA", eps=EPS, nb_iter=10, nb_sample=32, lr=STEP)},
            images=16,
        ),
        Contest(
            f"one pixel, {PIXELS} of them",
            OnePixel(eps=PIXELS, population=60, generations=10, base="best"),
            {"torchattacks": torchattacks("OnePixel", pixels=PIXELS, steps=10, popsize=60)},
            images=48,
        ),
    ]
