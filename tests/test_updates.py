"""Updates: the bits of torch.optim, and what every update promises."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from algorithms import plugins
from algorithms.averaging import average
from algorithms.schedules.constant import Constant
from algorithms.schedules.cosine import Cosine
from algorithms.schedules.piecewise import Piecewise
from algorithms.updates import Parameters, State, Update
from algorithms.updates.adam import Adam
from algorithms.updates.adamw import AdamW
from algorithms.updates.sgd import SGD

STEPS = 25
Groups = list[dict[str, object]]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3)).double()


def batches(model: nn.Module) -> Iterator[None]:
    """Leaves the gradients of a new batch on the model, `STEPS` times. Some are large enough to be clipped."""
    rng = torch.Generator().manual_seed(2)
    for k in range(STEPS):
        model.zero_grad()
        x = torch.randn(8, 5, generator=rng, dtype=torch.float64)
        (model(x).square().sum() * (1 + k % 3)).backward()
        yield


def ours(update: Update, model: nn.Module) -> Parameters:
    """The parameters after the same batches; the model's own follow along, so that gradients are those of the path."""
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    state = update.start(parameters)
    for _ in batches(model):
        gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        parameters, state = update.step(parameters, gradients, state)
        model.load_state_dict(parameters)
    return parameters


def theirs(make: Callable[[Groups], torch.optim.Optimizer], update: SGD | Adam | AdamW, model: nn.Module) -> Parameters:
    """The same by torch's optimiser `make`, one group a parameter so that some may go without weight decay."""
    decays = [update.weight_decay if update.decay_all or value.dim() > 1 else 0.0 for value in model.parameters()]
    pairs = zip(model.parameters(), decays, strict=True)
    optimizer = make([{"params": [parameter], "weight_decay": decay} for parameter, decay in pairs])
    for _ in batches(model):
        if update.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), update.clip_norm)
        optimizer.step()
    return {name: value.detach() for name, value in model.named_parameters()}


def assert_equal(actual: Parameters, expected: Parameters, atol: float = 0.0) -> None:
    assert list(actual) == list(expected)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=atol)


@pytest.mark.parametrize("decay", [{}, {"weight_decay": 0.02}, {"weight_decay": 0.3, "decay_all": False}], ids=str)
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 3.0}], ids=str)
class TestAgainstTorch:
    @pytest.mark.parametrize("momentum", [{"momentum": 0.0}, {}, {"momentum": 0.8, "nesterov": True}], ids=str)
    def test_sgd(self, momentum: dict[str, float], clip: dict[str, float], decay: dict[str, float]) -> None:
        update = SGD(learning_rate=0.003, **momentum, **clip, **decay)
        make = partial(torch.optim.SGD, lr=0.003, momentum=update.momentum, nesterov=update.nesterov)
        assert_equal(ours(update, network()), theirs(make, update, network()))

    @pytest.mark.parametrize("own", [{}, {"betas": (0.5, 0.9), "epsilon": 1e-3}], ids=str)
    @pytest.mark.parametrize(("kind", "optimizer"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
    def test_adam(
        self,
        kind: type[Adam],
        optimizer: type[torch.optim.Optimizer],
        own: dict[str, float],
        clip: dict[str, float],
        decay: dict[str, float],
    ) -> None:
        update = kind(learning_rate=0.01, **({"weight_decay": 0.0} | own | clip | decay))
        make = partial(optimizer, lr=0.01, betas=update.betas, eps=update.epsilon)
        assert_equal(ours(update, network()), theirs(make, update, network()), atol=1e-12)


def test_clipping_limits_the_common_norm() -> None:
    start = {"a": torch.zeros(3), "b": torch.zeros(2, 2)}
    gradients = {"a": torch.full((3,), 3.0), "b": torch.full((2, 2), 1.5)}  # norm sqrt(27 + 9) = 6
    plain = SGD(learning_rate=1.0, momentum=0.0)
    free, _ = plain.step(start, gradients, {})
    assert_equal(free, {name: -value for name, value in gradients.items()})
    clipped, _ = SGD(learning_rate=1.0, momentum=0.0, clip_norm=2.0).step(start, gradients, {})
    assert_equal(clipped, {name: -value / 3 for name, value in gradients.items()}, atol=1e-6)
    wide, _ = SGD(learning_rate=1.0, momentum=0.0, clip_norm=7.0).step(start, gradients, {})
    assert_equal(wide, free)


# The contract: every plug-in of the folder, built from its defaults.


@pytest.fixture(params=plugins.names(Update))
def update(request: pytest.FixtureRequest) -> Update:
    return plugins.find(Update, request.param)()


def point(seed: int) -> Parameters:
    """Parameters of a small network, as flat numbers as a fresh one has."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "dense.weight": (5, 16), "dense.bias": (5,)}
    return {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


TARGET = {name: value / 10 for name, value in point(7).items()}  # so small that any constraint on weights allows it


def quadratic(parameters: Parameters) -> float:
    return sum(((value - TARGET[name]) ** 2).sum().item() / 2 for name, value in parameters.items())


def slope(parameters: Parameters) -> Parameters:
    return {name: value - TARGET[name] for name, value in parameters.items()}


def walk(update: Update, parameters: Parameters, state: State, steps: int) -> tuple[Parameters, State]:
    for k in range(steps):
        parameters, state = update.at(k / steps).step(parameters, slope(parameters), state)
    return parameters, state


def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


def test_a_step_lowers_a_quadratic_and_more_steps_lower_it_more(update: Update) -> None:
    start = point(0)
    one, state = walk(update, start, update.start(start), 1)
    many, _ = walk(update, one, state, 10)
    assert quadratic(start) > quadratic(one) > quadratic(many)


def test_inputs_stay_as_they_are(update: Update) -> None:
    start = point(0)
    parameters, state = walk(update, start, update.start(start), 2)
    gradients = slope(parameters)
    before = copy(parameters), copy(gradients), copy(state)
    moved, _ = update.step(parameters, gradients, state)
    for tensors, old in zip((parameters, gradients, state), before, strict=True):
        assert_equal(tensors, old)
    assert list(moved) == list(parameters)
    assert not {value.data_ptr() for value in moved.values()} & {value.data_ptr() for value in parameters.values()}


def test_results_need_no_gradient_even_if_the_parameters_do(update: Update) -> None:
    start = {name: value.requires_grad_() for name, value in point(0).items()}
    gradients = {name: value.detach() for name, value in slope(start).items()}
    moved, state = update.step(start, gradients, update.start(start))
    assert not any(value.requires_grad for value in (*moved.values(), *state.values()))


def test_the_same_inputs_give_the_same_bits(update: Update) -> None:
    first, first_state = walk(update, point(0), update.start(point(0)), 3)
    torch.manual_seed(99)
    second, second_state = walk(update, point(0), update.start(point(0)), 3)
    assert_equal(first, second)
    assert_equal(first_state, second_state)


def test_it_pickles_and_compares_as_a_value(update: Update) -> None:
    assert pickle.loads(pickle.dumps(update)) == update
    assert update.at(0.5) == update.at(0.5)


def test_the_state_survives_safetensors(update: Update) -> None:
    parameters, state = walk(update, point(0), update.start(point(0)), 3)
    loaded = safetensors.torch.load(safetensors.torch.save(state))
    assert {name: value.dtype for name, value in loaded.items()} == {name: value.dtype for name, value in state.items()}
    straight, resumed = walk(update, parameters, state, 2), walk(update, parameters, loaded, 2)
    assert_equal(resumed[0], straight[0])
    assert_equal(resumed[1], straight[1])


# Schedules on the learning rate


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_at_multiplies_the_learning_rate_once(kind: type[SGD]) -> None:
    update = kind(learning_rate=0.2, schedule=Piecewise(milestones=(0.5,), gamma=0.25))
    assert update.at(0.4) == kind(learning_rate=0.2, schedule=Constant())
    assert update.at(0.6) == kind(learning_rate=0.05, schedule=Constant())
    assert update.at(0.6).at(0.6) == update.at(0.6)
    assert kind(schedule=Cosine()).at(1.0).learning_rate == 0


# What users get wrong

WRONG = [
    (SGD, {"learning_rate": -0.1}, "learning_rate: a step's length along the gradient, at least 0, not -0.1"),
    (SGD, {"learning_rate": float("nan")}, "learning_rate: .*, a finite number, not nan"),
    (SGD, {"momentum": 1.0}, "momentum: .*, at least 0 and less than 1, not 1"),
    (SGD, {"momentum": -0.1}, "momentum: .*, at least 0 and less than 1, not -0.1"),
    (SGD, {"momentum": 0.0, "nesterov": True}, "nesterov: needs a momentum above 0"),
    (SGD, {"weight_decay": -1.0}, "weight_decay: .*, at least 0, not -1"),
    (SGD, {"clip_norm": -1.0}, "clip_norm: .*, at least 0, not -1"),
    (Adam, {"learning_rate": float("inf")}, "learning_rate: .*, a finite number, not inf"),
    (Adam, {"betas": (1.0, 0.999)}, "betas: the share of the running mean of gradients .* less than 1, not 1"),
    (Adam, {"betas": (0.9, 1.5)}, "betas: the share of the running mean of squared gradients .* not 1.5"),
    (AdamW, {"epsilon": -1e-8}, "epsilon: .*, at least 0, not -1e-08"),
    (AdamW, {"weight_decay": -1.0}, "weight_decay: .*, at least 0, not -1"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), WRONG)
def test_wrong_fields_are_named(kind: type[Update], fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**fields)


# The moving average of weights


def test_the_average_is_torchs_after_any_number_of_steps() -> None:
    model = network()
    oracle = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    oracle.update_parameters(model)  # its first call copies
    averaged = copy(dict(model.named_parameters()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    for _ in batches(model):
        optimizer.step()
        oracle.update_parameters(model)
        averaged = average(averaged, dict(model.named_parameters()), 0.9)
    assert_equal(averaged, {k: v.detach() for k, v in oracle.module.named_parameters()}, atol=1e-12)
    assert not any(value.requires_grad for value in averaged.values())


def test_the_average_is_pure_and_without_bias() -> None:
    first, second = {"w": torch.tensor([4.0, 8.0])}, {"w": torch.tensor([8.0, 0.0])}
    assert_equal(average(first, second, 0.75), {"w": torch.tensor([5.0, 6.0])})
    assert_equal(average(first, first, 0.999), first)  # no pull towards zero at the start
    assert_equal(average(first, second, 0.0), second)
    assert_equal(first, {"w": torch.tensor([4.0, 8.0])})
    assert_equal(second, {"w": torch.tensor([8.0, 0.0])})
