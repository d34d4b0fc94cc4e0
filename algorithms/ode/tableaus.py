"""The adaptive Runge-Kutta methods as tables of numbers, with the choices of torchdiffeq."""

from __future__ import annotations

from typing import NamedTuple


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method with an error estimate and a value in the middle of the step."""

    order: int  # in the law of step sizes
    times: tuple[float, ...]  # of the stages after the first, in units of the step
    stages: tuple[tuple[float, ...], ...]  # weights of the earlier derivatives, a row for each of these stages
    solution: tuple[float, ...]  # weights of all derivatives
    error: tuple[float, ...]
    middle: tuple[float, ...]


TABLEAUS = {
    "adaptive_heun": Tableau(
        order=2, times=(1.0,), stages=((1.0,),), solution=(0.5, 0.5), error=(0.5, -0.5), middle=(0.5, 0.0)
    ),
    # Bogacki and Shampine 1989
    "bosh3": Tableau(
        order=3,
        times=(1 / 2, 3 / 4, 1.0),
        stages=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        solution=(2 / 9, 1 / 3, 4 / 9, 0.0),
        error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
        middle=(0.0, 0.5, 0.0, 0.0),
    ),
    # Dormand and Prince 1980, with the error estimate and the middle of Shampine 1986
    "dopri5": Tableau(
        order=5,
        times=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        stages=(
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        solution=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
        error=(
            35 / 384 - 1951 / 21600,
            0.0,
            500 / 1113 - 22642 / 50085,
            125 / 192 - 451 / 720,
            -2187 / 6784 + 12231 / 42400,
            11 / 84 - 649 / 6300,
            -1 / 60,
        ),
        middle=(
            6025192743 / 30085553152 / 2,
            0.0,
            51252292925 / 65400821598 / 2,
            -2691868925 / 45128329728 / 2,
            187940372067 / 1594534317056 / 2,
            -1776094331 / 19743644256 / 2,
            11237099 / 235043384 / 2,
        ),
    ),
}
