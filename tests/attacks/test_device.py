"""What keeps a GPU busy: no step of an attack with a fixed number of them waits for a number from the device.

Tensors on the device `meta` have no values, and raise where one is asked for: which rows a mask holds, say, or whether
any row is done. So these tests need no GPU.
"""

from __future__ import annotations

import pytest
import torch

from algorithms.ledger import Ledger, Policy
from algorithms.models.cnn4 import Cnn4
from algorithms.modes import frozen
from algorithms.search import Problem, descend
from algorithms.streams import Streams
from tests.attacks.conftest import built

UNASKED = [
    "apgd-linf",
    "daa-linf",
    "feature_adversary-linf",
    "feature_adversary-l2",
    "fgsm-linf",
    "fgsm-l2",
    "fgsm-l1",
    "pdgd-l2",
    "pdpgd-linf",
    "pdpgd-l1",
    "pdpgd-l0",
    "pgd-linf",
    "pgd-l2",
    "sigma_zero-l0",
]


@pytest.mark.parametrize("policy", ["highest loss", "last"])
@pytest.mark.parametrize("name", UNASKED)
def test_no_step_asks_anything_of_the_device(name: str, policy: Policy) -> None:
    with torch.device("meta"):
        model = Cnn4().build((1, 28, 28), 10).eval()
        x, y = torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64)
        streams = Streams(torch.zeros(4, dtype=torch.int64))
    ledger = Ledger(built(name), x, y, policy)
    ledger.labels_checked = True  # once a search, before its first step
    with frozen(model):
        descend(built(name), Problem(model, ledger, torch.arange(4, device="meta"), streams, None))
    assert ledger.best.is_meta
