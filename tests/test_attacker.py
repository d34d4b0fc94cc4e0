"""An attacker against a model in half precision: what it makes must fool the model as it is."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.margin import Margin
from algorithms.defenses.standard import Standard
from algorithms.defenses.trades import Trades
from algorithms.models.mlp import Mlp
from tests.training import WORK, changed
from workers import runtime
from workers.attacker import Attacker
from workers.bench import Bench
from workers.descent import tensor
from workers.messages import Shard, Snapshot, Work

SHARD = Shard(epoch=0, step=0, number=0)


def trained(work: Work) -> Snapshot:
    """A network that has learnt the digits a little, without adversarial examples."""
    bench = Bench(work)
    optimizer = torch.optim.Adam(bench.model.parameters(), lr=0.01)
    for number in range(40):
        batch = bench.read(Shard(0, number % 10, 0))
        loss = nn.functional.cross_entropy(bench.model(batch.x), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return runtime.snapshot(bench.model, 0)


def loss_under(work: Work, taken: Snapshot) -> float:
    """Mean loss, in float32, of the examples that an attacker makes of a shard."""
    bench = Bench(work)
    runtime.load(bench.model, taken)
    bench.model.eval()
    _, payload = Attacker(work).attack(SHARD, taken)
    assert isinstance(payload, np.ndarray)
    assert payload.dtype == np.float32
    batch = bench.read(SHARD)
    with torch.no_grad():
        return nn.functional.cross_entropy(bench.model(tensor(payload, bench.device)), batch.y).item()


def test_examples_made_in_bfloat16_are_as_strong() -> None:
    defense = Adversarial(attack=PGD(eps=0.1, step_size=0.025, steps=10))
    full, half = changed(defense=defense), changed(defense=defense, precision="bfloat16")
    taken = trained(WORK)
    none = loss_under(changed(defense=Adversarial(attack=PGD(eps=0.0, step_size=0.0, steps=1))), taken)
    strong = loss_under(full, taken)
    assert strong > none + 0.5
    assert loss_under(half, taken) > none + 0.95 * (strong - none)


def test_the_model_in_bfloat16_follows_the_parameters() -> None:
    model = WORK.model.build((1, 8, 8), 10).eval()
    opponent = runtime.lowered(model, "bfloat16").eval()
    assert {p.dtype for p in opponent.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    runtime.follow(opponent, model)
    x = torch.rand(8, 1, 8, 8)
    torch.testing.assert_close(opponent(x.bfloat16()).float(), model(x), rtol=0.05, atol=0.05)


def test_in_float32_there_is_one_model() -> None:
    model = WORK.model.build((1, 8, 8), 10)
    assert runtime.lowered(model, "float32") is model


FIRST, SECOND = 64 * 10, 10 * 10  # products of one image's pass through the two layers of a network with ten units
FORWARD = FIRST + SECOND
LEARNT = FORWARD + FORWARD + SECOND  # forward, gradients of both weights, and of the units that the second layer saw


@pytest.mark.parametrize(
    ("defense", "passes"),
    [
        (Standard(), LEARNT / FORWARD),
        (Trades(steps=1), 2 * LEARNT / FORWARD),  # clean and adversarial images
        # forward, nine gradients for the input and one with a graph, and the fit; second derivatives: both weights',
        # that of what the first layer's transpose saw, and the zeros of ReLU's that torch carries to the first weights
        (Margin(), (11 * FORWARD + LEARNT + 3 * FIRST + SECOND) / FORWARD),
    ],
)
def test_what_a_loss_costs_by_hand(defense: Defense, passes: float) -> None:
    attacker = Attacker(changed(model=Mlp(hidden=(10,)), defense=defense))
    taken = runtime.snapshot(attacker.bench.network, 0)
    assert attacker.loss_passes(SHARD, taken)[0] == pytest.approx(passes)


def test_perturbing_weights_costs_the_loss_once_more() -> None:
    work = changed(model=Mlp(hidden=(10,)), defense=Standard(), weight_perturbation=0.01)
    attacker = Attacker(work)
    assert attacker.loss_passes(SHARD, runtime.snapshot(attacker.bench.network, 0))[0] == 2 * LEARNT / FORWARD


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_a_pass_frees_the_next_one_gets_without_the_kernel() -> None:
    program = (
        "import resource, torch; from workers import runtime\n"
        "runtime.prepare('cpu', 1)\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def like_a_pass(): return [torch.ones(2**21) for _ in range(6)] and None\n"  # 48 MiB, 12,288 pages
        "like_a_pass(), like_a_pass(); before = faults(); [like_a_pass() for _ in range(5)]\n"
        "assert faults() - before < 5000, faults() - before"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_an_attacker_is_ready_without_the_compiler() -> None:
    """Nor does it import what solvers alone need, which take seconds. Operations are determined all the same."""
    program = (
        "import sys, torch; from workers import attacker, runtime\n"
        "runtime.prepare('cpu', 1)\n"
        "assert not {'torch._dynamo', 'torch._inductor', 'scipy.optimize', 'cvxpy', 'mlflow'} & set(sys.modules)\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "assert torch.is_deterministic_algorithms_warn_only_enabled()\n"
        "assert not torch.utils.deterministic.fill_uninitialized_memory"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_clean_accuracy_is_of_an_eighth_of_the_batch_and_seen_by_the_first_shard() -> None:
    taken = trained(WORK)
    attacker, bench = Attacker(WORK), Bench(WORK)
    runtime.load(bench.model, taken)
    first, _ = attacker.attack(SHARD, taken)
    second, _ = attacker.attack(SHARD._replace(number=1), taken)
    batch, few = bench.read(SHARD), WORK.batch // 8
    assert few < len(batch.x)
    with torch.no_grad():
        right = bench.model.eval()(batch.x).argmax(1) == batch.y
    assert first.clean_accuracy == pytest.approx(right[:few].float().mean().item())
    assert right[:few].float().mean() != right.float().mean()
    assert np.isnan(second.clean_accuracy)
