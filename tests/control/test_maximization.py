"""The update: SGD without a constraint, the bound with one, each layer by itself, and what users get wrong."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.control import hamiltonian
from algorithms.control.constraints import Constraint
from algorithms.control.constraints.antisymmetric import Antisymmetric
from algorithms.control.constraints.box import Box
from algorithms.control.constraints.convolution import Convolution
from algorithms.control.constraints.frobenius import Frobenius
from algorithms.control.constraints.log_det_barrier import LogDetBarrier
from algorithms.control.constraints.semidefinite import Semidefinite
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.control.constraints.unconstrained import Unconstrained
from algorithms.control.decoupling import collected, of_layer
from algorithms.control.maximisation import Layer, Terms, maximise
from algorithms.control.states import layers, trajectory
from algorithms.schedules.constant import Constant
from algorithms.schedules.piecewise import Piecewise
from algorithms.updates import Parameters, State
from algorithms.updates.hamiltonian_maximization import HamiltonianMaximization
from algorithms.updates.sgd import SGD
from orchestrator.config import load_recipe, recipe_from, resolve
from orchestrator.recipe import Recipe
from tests.control.networks import batch, residual

FREE = Unconstrained()


def values(model: nn.Module) -> Parameters:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def gradients(parameters: Parameters, seed: int = 0) -> Parameters:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=rng).to(value) for name, value in parameters.items()}


def small() -> Parameters:
    rng = torch.Generator().manual_seed(5)
    shapes = {
        "conv.weight": (4, 3, 3, 3),
        "conv.bias": (4,),
        "norm.weight": (4,),
        "a.fc.weight": (5, 5),
        "out.weight": (3, 5),
    }
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def step(update: HamiltonianMaximization, parameters: Parameters, seed: int = 0) -> Parameters:
    return update.step(parameters, gradients(parameters, seed), update.start(parameters))[0]


def explicit_step(model: nn.Module, x: Tensor, y: Tensor, alpha: float, beta: float) -> Parameters:
    """(P / 2 + beta theta') / (alpha + beta), with P from states and co-states."""
    visits = trajectory(model, lambda: functional.cross_entropy(model(x), y)).visits
    moved = {}
    for name, layer in layers(model).items():
        for own, product in hamiltonian.products(layer, visits[name]).items():
            moved[f"{name}.{own}"] = (product / 2 + beta * layer.get_parameter(own).detach()) / (alpha + beta)
    return moved


def test_without_a_constraint_it_is_sgd() -> None:
    """On convolution, batch norm in training mode, residual block and dense layer, for 25 steps, by three ways:
    states and co-states with the paper's formula, this update, and torch's optimiser."""
    alpha, beta = 0.03, 2.4
    rate = 1 / (2 * (alpha + beta))
    models = [residual().train() for _ in range(3)]
    optimizer = torch.optim.SGD(models[0].parameters(), lr=rate, weight_decay=2 * alpha)
    update = HamiltonianMaximization(alpha=alpha, beta=beta, constraint=FREE)
    state: State = update.start(values(models[1]))
    for k in range(25):
        x, y = batch(2, seed=k)
        for model in models[:2]:
            model.zero_grad()
            functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        slopes = {name: p.grad.clone() for name, p in models[1].named_parameters() if p.grad is not None}
        moved, state = update.step(values(models[1]), slopes, state)
        models[1].load_state_dict(moved, strict=False)
        models[2].load_state_dict(explicit_step(models[2], x, y, alpha, beta), strict=False)
    for expected, ours, explicit in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(explicit, expected, rtol=0, atol=1e-10)
    assert any(
        bool((p - q).abs().max() > 0.01) for p, q in zip(models[0].parameters(), residual().parameters(), strict=True)
    )


def test_a_learning_rate_and_its_beta_are_the_same_bits_as_sgd() -> None:
    start = small()
    ours = step(HamiltonianMaximization(learning_rate=0.01, alpha=0.001, constraint=FREE), start)
    theirs, _ = SGD(learning_rate=0.01, momentum=0.0, weight_decay=0.002).step(start, gradients(start), {})
    assert all(torch.equal(ours[name], theirs[name]) for name in start)
    by_beta = step(HamiltonianMaximization(beta=49.999, alpha=0.001, constraint=FREE), start)
    for name in start:
        torch.testing.assert_close(by_beta[name], ours[name])


@pytest.mark.parametrize("constraint", [FREE, SpectralNorm(bound=0.7), Frobenius(bound=1.2), Box(bound=0.2)], ids=str)
def test_each_update_increases_each_layers_hamiltonian(constraint: Constraint) -> None:
    """By beta |step|^2 at least, if the weights it starts from are allowed: the new ones maximise H - beta |step|^2."""
    alpha, beta = 0.01, 0.5
    model = residual().train()
    update = HamiltonianMaximization(alpha=alpha, beta=beta, constraint=constraint)
    start = {name: constraint.project(p) if p.dim() > 1 else p for name, p in values(model).items()}
    model.load_state_dict(start, strict=False)
    x, y = batch(2)
    visits = trajectory(model, lambda: functional.cross_entropy(model(x), y)).visits
    grown = {}
    for path, layer in layers(model).items():
        product = hamiltonian.products(layer, visits[path])
        own = {name.rpartition(".")[2]: p for name, p in start.items() if name.rpartition(".")[0] == path}
        moved, _ = update.step(
            {f"{path}.{name}": p for name, p in own.items()}, {f"{path}.{name}": -p for name, p in product.items()}, {}
        )
        new = {name: moved[f"{path}.{name}"] for name in own}
        size = sum(float((new[name] - own[name]).square().sum()) for name in own)
        grown[path] = hamiltonian.increase(layer, visits[path], new, alpha)
        assert grown[path] >= beta * size - 1e-12
    assert max(grown.values()) > 1e-4


def test_the_bound_holds_after_every_step() -> None:
    parameters = small()
    update = HamiltonianMaximization(learning_rate=0.3, constraint=SpectralNorm(bound=0.9), momentum=0.5, steps=2)
    state = update.start(parameters)
    for k in range(10):
        parameters, state = update.step(parameters, gradients(parameters, k), state)
        norms = [float(torch.linalg.svdvals(p.double().flatten(1))[0]) for p in parameters.values() if p.dim() > 1]
        assert max(norms) <= 0.9 + 1e-6
    assert float(parameters["conv.bias"].norm()) > 0.9  # biases do not enter the Jacobian


def test_the_bound_holds_for_the_largest_layers_in_single_precision() -> None:
    rng = torch.Generator().manual_seed(0)
    parameters = {"fc.weight": (512, 512), "conv.weight": (512, 512, 3, 3)}
    start = {name: torch.randn(shape, generator=rng) / 30 for name, shape in parameters.items()}
    for name, theta in step(HamiltonianMaximization(learning_rate=0.01), start).items():
        exact = theta.double().flatten(1)
        norm = float(torch.linalg.eigvalsh(exact @ exact.T)[-1].sqrt())
        assert theta.dtype == torch.float32
        assert 1 - 1e-4 < norm <= 1 + 1e-5, name


def test_the_bound_on_the_operator_holds_for_the_largest_convolution() -> None:
    """3x3x512x512 on a torus of 3x3 positions, whose nine frequencies are told by a transform and a decomposition."""
    theta = torch.randn(512, 512, 3, 3, generator=torch.Generator().manual_seed(3)) * 0.02
    update = HamiltonianMaximization(
        learning_rate=1.0,
        alpha=0.0,
        constraint=Convolution(bound=1.0, size=(3, 3), padding="circular", iterations=1),
    )
    moved = step(update, {"conv.weight": theta})["conv.weight"]
    assert moved.dtype == torch.float32
    frequencies = torch.fft.fft2(moved).permute(2, 3, 0, 1)
    assert float(torch.linalg.matrix_norm(frequencies, 2).max()) <= 1 + 1e-5


def test_any_order_of_the_layers_gives_the_same_bits() -> None:
    parameters, slopes = small(), gradients(small())
    update = HamiltonianMaximization(learning_rate=0.3, momentum=0.9, layers={"conv": Layer(alpha=0.5, every=2)})
    state = update.start(parameters)
    whole, kept = update.step(parameters, slopes, state)
    terms = update.terms(parameters)
    results = {
        name: maximise(
            *pickle.loads(pickle.dumps((terms[name], parameters[name], -slopes[name], of_layer(name, state))))
        )
        for name in reversed(list(parameters))
    }
    alone, remembered, notes = collected({name: results[name] for name in parameters})
    assert notes == ()
    assert list(alone) == list(whole)
    assert list(remembered) == list(kept)
    assert all(torch.equal(alone[name], whole[name]) for name in whole)
    assert all(torch.equal(remembered[name], kept[name]) for name in kept)


# Each layer's own terms


def test_patterns_name_layers_and_the_longest_wins() -> None:
    update = HamiltonianMaximization(
        learning_rate=0.1,
        layers={
            "*": Layer(alpha=0.5),
            "a.*": Layer(learning_rate=0.02, constraint=Frobenius(bound=2.0)),
            "conv": Layer(constraint=Box(bound=0.1), steps=3),
            "norm.weight": Layer(constraint=Box(bound=0.2), frozen=True),
        },
    )
    terms = update.terms(small())
    assert terms["out.weight"].alpha == 0.5
    assert terms["out.weight"].constraint == SpectralNorm()
    assert (terms["a.fc.weight"].alpha, terms["a.fc.weight"].rate) == (0.001, 0.02)
    assert terms["a.fc.weight"].constraint == Frobenius(bound=2.0)
    assert (terms["conv.weight"].constraint, terms["conv.weight"].steps) == (Box(bound=0.1), 3)
    assert terms["conv.bias"].constraint == FREE  # one axis, and not named in full
    assert terms["norm.weight"].constraint == Box(bound=0.2)
    shuffled = replace(update, layers=dict(reversed(update.layers.items())))
    assert shuffled.terms(small()) == terms


def test_length_and_an_exact_name_win_whatever_the_alphabet_says() -> None:
    layers = {
        "o*": Layer(alpha=0.1),
        "*ut.weight": Layer(alpha=0.2),
        "conv": Layer(alpha=0.3),
        "conv.*": Layer(alpha=0.4),
    }
    terms = HamiltonianMaximization(layers=layers).terms(small())
    assert (terms["out.weight"].alpha, terms["conv.weight"].alpha) == (0.2, 0.3)


def test_layers_that_are_frozen_stay_and_others_move_by_their_own_rates() -> None:
    start = small()
    update = HamiltonianMaximization(
        learning_rate=0.1, alpha=0.0, constraint=FREE, layers={"conv.*": Layer(frozen=True), "a.*": Layer(beta=5.0)}
    )
    moved, slopes = step(update, start), gradients(start)
    assert torch.equal(moved["conv.weight"], start["conv.weight"])
    torch.testing.assert_close(moved["a.fc.weight"], start["a.fc.weight"] - slopes["a.fc.weight"] / 10)
    torch.testing.assert_close(moved["out.weight"], start["out.weight"] - slopes["out.weight"] / 10)


def test_momentum_is_a_mean_of_products_without_bias() -> None:
    theta, products = torch.zeros(2, 2), [torch.full((2, 2), 3.0), torch.full((2, 2), -6.0), torch.full((2, 2), 9.0)]
    update = HamiltonianMaximization(learning_rate=1.0, alpha=0.0, constraint=FREE, momentum=0.5)
    parameters: Parameters = {"w": theta}
    state = update.start(parameters)
    for product in products:
        parameters, state = update.step(parameters, {"w": -product}, state)
    means = [3.0, (0.5 * 3 - 6) / 1.5, (0.25 * 3 - 0.5 * 6 + 9) / 1.75]
    torch.testing.assert_close(parameters["w"], torch.full((2, 2), sum(means)))


def test_several_maximisations_a_pass_go_on_from_where_the_last_ended() -> None:
    update = HamiltonianMaximization(learning_rate=0.2, alpha=0.1, constraint=Box(bound=0.5))
    once = twice = small()
    for _ in range(2):
        once = step(update, once)
    twice = step(replace(update, steps=2), twice)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_a_projection_every_other_pass() -> None:
    parameters = {"w": torch.eye(3)}
    update = HamiltonianMaximization(learning_rate=0.1, alpha=0.0, every=2)
    state, norms = update.start(parameters), []
    for _ in range(4):
        parameters, state = update.step(parameters, {"w": -torch.eye(3)}, state)
        norms.append(round(float(torch.linalg.matrix_norm(parameters["w"], 2)), 4))
    assert norms == [1.1, 1.0, 1.1, 1.0]


def test_a_barrier_takes_its_weight_relative_to_alpha_and_beta() -> None:
    theta, alpha, beta, mu = torch.diag(torch.tensor([0.5, 3.0], dtype=torch.float64)), 0.2, 1.8, 0.1
    update = HamiltonianMaximization(alpha=alpha, beta=beta, constraint=LogDetBarrier(weight=mu))
    moved = step(update, {"w": theta})["w"].requires_grad_()
    product = -gradients({"w": theta})["w"]
    value = (product * moved).sum() - alpha * moved.square().sum() - beta * (moved - theta).square().sum()
    value = value + mu * torch.logdet(torch.eye(2) - moved @ moved.T)
    (slope,) = torch.autograd.grad(value, moved)
    assert slope.abs().max() < 1e-8


def test_a_scale_in_the_state_bounds_the_fold() -> None:
    parameters = {"w": 3 * torch.eye(2)}
    update = HamiltonianMaximization(learning_rate=0.0, alpha=0.0)
    state = update.start(parameters) | {"scale/w": torch.tensor([10.0, 0.1])}
    moved, kept = update.step(parameters, {"w": torch.zeros(2, 2)}, state)
    torch.testing.assert_close(moved["w"], torch.tensor([[0.1, 0.0], [0.0, 3.0]]))
    assert torch.equal(kept["scale/w"], state["scale/w"])


# Schedules and recipes


def test_the_schedule_reaches_every_layers_rate() -> None:
    schedule = Piecewise(milestones=(0.2, 0.4), gamma=0.2)
    update = HamiltonianMaximization(
        beta=49.999, schedule=schedule, layers={"conv": Layer(learning_rate=0.1), "out": Layer(beta=4.999)}
    )
    later = update.at(0.5)
    rates = {name: terms.rate for name, terms in later.terms(small()).items()}
    assert rates["a.fc.weight"] == pytest.approx(0.01 / 25)
    assert rates["conv.weight"] == rates["conv.bias"] == pytest.approx(0.1 / 25)
    assert rates["out.weight"] == pytest.approx(0.1 / 25)
    assert later.schedule == Constant()
    assert later.at(0.9) == later
    assert {name: t.rate for name, t in update.at(0.0).terms(small()).items()} == {
        name: t.rate for name, t in update.terms(small()).items()
    }


RECIPE = """
[update]
name = "hamiltonian_maximization"
learning_rate = 0.05
constraint = {name = "spectral_norm", bound = 0.8}

[update.schedule]
name = "cosine"

[update.layers."block3.*"]
alpha = 0.0
constraint = {name = "semidefinite", solver = "scs"}

[update.layers."fc"]
frozen = true
constraint = "unconstrained"
"""


def test_a_recipe_gives_layers_their_own_constraints(tmp_path: Path) -> None:
    file = tmp_path / "msa.toml"
    file.write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(file)
    update = recipe.update
    assert isinstance(update, HamiltonianMaximization)
    assert update.constraint == SpectralNorm(bound=0.8)
    assert update.layers["block3.*"] == Layer(alpha=0.0, constraint=Semidefinite(solver="scs"))
    assert update.layers["fc"] == Layer(frozen=True, constraint=FREE)
    assert recipe_from(json.loads(json.dumps(resolve(recipe), sort_keys=True))) == recipe


def test_a_wrong_number_in_a_recipe_is_named_with_its_place() -> None:
    tables = resolve(Recipe()) | {"update": {"name": "hamiltonian_maximization", "layers": {"fc.*": {"steps": 0}}}}
    with pytest.raises(ValueError, match=r"update\.layers.*fc.*steps: maximisations a pass, at least 1, not 0"):
        recipe_from(tables)


# What users get wrong: clear errors, and nothing has moved

WRONG = [
    ({"alpha": 0.0, "beta": 0.0}, r"^beta: alpha \+ beta more than 0"),
    ({"alpha": 1.0, "learning_rate": 0.6}, r"^learning_rate: at most 1 / \(2 alpha\) = 0.5"),
    ({"alpha": -1.0}, "^alpha: the factor of the squared weights, at least 0, not -1"),
    ({"beta": float("nan")}, "^beta: .*, a finite number, not nan"),
    ({"momentum": 1.0}, "^momentum: .*less than 1, not 1"),
    ({"steps": 0}, "^steps: maximisations a pass, at least 1, not 0"),
    ({"every": 0}, "^every: passes between two projections, at least 1, not 0"),
    ({"alpha": 0.0, "layers": {"fc": Layer(beta=0.0)}}, r"^layers: 'fc': beta: alpha \+ beta more than 0"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=str)
def test_wrong_fields_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HamiltonianMaximization(**fields)


def test_a_layer_has_either_a_rate_or_a_beta() -> None:
    with pytest.raises(ValueError, match=r"^beta: either beta or learning_rate, not both"):
        Layer(beta=1.0, learning_rate=0.1)


def test_a_pattern_that_names_nothing_is_refused_at_the_start() -> None:
    update = HamiltonianMaximization(layers={"con": Layer(alpha=0.0)})
    with pytest.raises(ValueError, match=r"no layer is called 'con'; did you mean 'conv'[?] there are: conv.weight, "):
        update.start(small())
    with pytest.raises(ValueError, match="no layer is called 'con'"):
        update.step(small(), gradients(small()), {})


def test_a_constraint_that_does_not_suit_a_layer_is_refused_at_the_start() -> None:
    update = HamiltonianMaximization(constraint=Antisymmetric(), layers={"conv": Layer(constraint=FREE)})
    with pytest.raises(ValueError, match=r"^out.weight: the constraint Antisymmetric needs a square matrix.*\(3, 5\)"):
        update.start(small())
    with pytest.raises(ValueError, match=r"^out.weight: the constraint Antisymmetric needs a square matrix"):
        update.step(small(), gradients(small()), {})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_refused_and_weights_stay(bad: float) -> None:
    parameters, slopes = small(), gradients(small())
    before = {name: value.clone() for name, value in parameters.items()}
    slopes["a.fc.weight"][1, 2] = bad
    update = HamiltonianMaximization()
    with pytest.raises(
        FloatingPointError, match=r"^a.fc.weight: the product of states and co-states .* in 1 of 25 entries"
    ):
        update.step(parameters, slopes, update.start(parameters))
    assert all(torch.equal(parameters[name], before[name]) for name in before)


def test_weights_that_overflow_are_refused() -> None:
    terms = Terms(name="w", alpha=0.0, rate=1e30, constraint=SpectralNorm())
    with pytest.raises(FloatingPointError, match=r"^w: the maximiser of the Hamiltonian is NaN or infinite in 4 of 4"):
        maximise(terms, torch.eye(2), torch.full((2, 2), 1e30), {})


def test_a_singular_projection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.raises(FloatingPointError, match=r"^w: the projection is singular: .*; lower learning_rate"):
        maximise(Terms(name="w", alpha=0.0, rate=0.1, constraint=SpectralNorm()), torch.eye(2), torch.eye(2), {})
