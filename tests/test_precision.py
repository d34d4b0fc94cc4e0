"""In which precision examples are made where the recipe leaves it open: by machine, by plug-in, once for a run."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from algorithms.attacks.deepfool import DeepFool
from algorithms.attacks.pgd import PGD
from algorithms.attacks.through import Through
from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.defenses import Defense
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.standard import Standard
from algorithms.defenses.trades import Trades
from algorithms.defenses.wasser_train import WasserTrain
from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from algorithms.models.mlp import Mlp
from algorithms.models.soblock import SOBlock
from algorithms.models.tempered import Tempered
from algorithms.ode.solver import Solver
from algorithms.search import search
from orchestrator.config import resolve, stored_recipe
from orchestrator.folders import write_json
from orchestrator.plan import precision_of, work_of
from orchestrator.recipe import Evaluation, Recipe, Tracking, Train, Workers
from orchestrator.run import find_run, finished_run, train
from tests.test_attacker import trained
from tests.training import changed
from workers import runtime
from workers.bench import Bench
from workers.messages import Precision, Shard

DOPRI5 = Solver(method="dopri5")


def machine(monkeypatch: pytest.MonkeyPatch, *instructions: str, library: bool = True) -> None:
    """Makes torch believe that it runs on a processor with these instructions."""
    known = MappingProxyType(
        {"architecture": "any", "avx2": True, "amx_bf16": False} | dict.fromkeys(instructions, True)
    )
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)


@pytest.mark.parametrize(
    ("instructions", "library", "device", "expected"),
    [
        (["avx512_bf16"], True, "cpu", "bfloat16"),
        (["amx_bf16"], True, "cpu", "bfloat16"),
        (["bf16"], True, "cpu", "bfloat16"),
        (["avx512_f", "avx512_vl"], True, "cpu", "float32"),  # torch would imitate it there
        (["bf16"], False, "cpu", "float32"),  # instructions that no library of torch's uses
        (["avx512_bf16"], True, "cuda", "float32"),
    ],
)
def test_the_machine_decides(
    monkeypatch: pytest.MonkeyPatch, instructions: list[str], library: bool, device: str, expected: str
) -> None:
    machine(monkeypatch, *instructions, library=library)
    assert runtime.quickest(device) == expected


def test_workers_with_other_instructions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for instructions, capability in (([], "AVX2"), ([], "AVX512"), (["avx512_bf16"], "AVX512")):
        machine(monkeypatch, *instructions)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda known=capability: known)
        found.add(runtime.fingerprint(torch.device("cpu")))
    assert len(found) == 3


def test_a_recipe_that_says_it_is_followed_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    choices: tuple[Precision, ...] = ("float32", "bfloat16")
    for instructions in ([], ["avx512_bf16"]):
        machine(monkeypatch, *instructions)
        for choice in choices:
            assert work_of(Recipe(train=Train(precision=choice))).precision == choice


@pytest.mark.parametrize(
    ("defense", "model", "expected"),
    [
        (Adversarial(), Cnn4(), "bfloat16"),
        (Standard(), Cnn4(), "bfloat16"),
        (Trades(), Mlp(), "bfloat16"),
        (WasserTrain(), Cnn4(), "bfloat16"),
        (Adversarial(attack=DeepFool()), Cnn4(), "float32"),
        (Adversarial(attack=Through(attack=DeepFool())), Cnn4(), "float32"),
        (Adversarial(first=DeepFool(), until=0.1), Cnn4(), "float32"),
        (Adversarial(), SOBlock(), "bfloat16"),
        (Adversarial(), SOBlock(solver=DOPRI5), "float32"),
        (Adversarial(), Tempered(model=SOBlock(prediction=DOPRI5)), "float32"),
    ],
    ids=str,
)
def test_what_needs_more_digits_has_them(
    monkeypatch: pytest.MonkeyPatch, defense: Defense, model: Model, expected: str
) -> None:
    machine(monkeypatch, "avx512_bf16")
    assert precision_of(Recipe(defense=defense, model=model, train=Train(precision="auto"))) == expected


def test_why_attacks_within_a_ball_need_fewer_digits_than_those_for_the_smallest_norm() -> None:
    """Of 32 digits the first fool as many in either precision; the others end at the boundary, and some miss it."""
    work = changed(model=Mlp(hidden=(64,)))
    bench = Bench(work)
    runtime.load(bench.model, trained(work))
    half = runtime.lowered(bench.network, "bfloat16").eval()
    batch = bench.read(Shard(0, 0, 0))

    def fooled(attack: PGD | DeepFool | WasserAttack, precision: Precision) -> float:
        model = bench.model.eval() if precision == "float32" else half
        rng = torch.Generator().manual_seed(0)
        x_adv = search(attack, model, batch.x, batch.y, rng=rng, policy="highest loss").x_adv
        return (bench.model(x_adv).argmax(1) != batch.y).float().mean().item()

    for attack in (PGD(eps=0.1, step_size=0.025, steps=10), WasserAttack(eps=0.2, steps=5)):
        assert fooled(attack, "bfloat16") == pytest.approx(fooled(attack, "float32"), abs=0.07)
    assert fooled(DeepFool(), "float32") == 1
    assert fooled(DeepFool(), "bfloat16") < 0.97


def small(folder: Path, train_: Train) -> Recipe:
    return Recipe(
        name="small",
        model=Mlp(hidden=(16,)),
        defense=Adversarial(attack=PGD(norm="l2", eps=0.5, step_size=0.25, steps=2)),
        train=train_,
        evaluation=Evaluation(eps=0.1, examples=16),
        workers=Workers(backend="inline"),
        tracking=Tracking(folder=str(folder)),
    )


def test_a_run_keeps_the_precision_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small(tmp_path, Train(precision="auto"))
    machine(monkeypatch, "avx512_bf16")
    folder, settled = find_run(recipe, None)
    assert settled.train.precision == "bfloat16"
    folder.path.mkdir(parents=True)
    write_json(folder.recipe, resolve(settled))
    machine(monkeypatch)  # the same command on another machine
    assert find_run(recipe, None) == (folder, settled)
    assert find_run(None, str(folder.path)) == (folder, settled)
    assert find_run(small(tmp_path, Train(precision="auto", lag=1)), None)[1].train.precision == "float32"


def test_a_run_says_what_it_was_made_in_and_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small(tmp_path, Train(precision="auto", epochs=1))
    machine(monkeypatch, "avx512_bf16")
    run = train(recipe)
    assert stored_recipe(run.folder.recipe).train.precision == "bfloat16"
    machine(monkeypatch)
    assert finished_run(recipe) == run.folder
