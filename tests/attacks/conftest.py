"""The attacks that the contract is tested on."""

from __future__ import annotations

import pytest

from algorithms.attacks import Attack
from tests.attacks.cheap import variants

ATTACKS = variants()


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> Attack:
    return built(request.param)


@pytest.fixture(params={name.partition("-")[0]: name for name in ATTACKS}.values())
def any_norm(request: pytest.FixtureRequest) -> Attack:
    """Each attack in one of its norms, for what has nothing to do with norms."""
    return built(request.param)


def built(name: str) -> Attack:
    attack = ATTACKS[name]
    if isinstance(attack, Exception):
        raise attack
    return attack
