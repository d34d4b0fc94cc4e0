"""The exponential moving average of weights (Polyak and Juditsky 1992; in adversarial training Gowal et al. 2020).

The latter: https://arxiv.org/abs/2010.03593, section 3. Only parameters are averaged: whoever trains decides which
batch-norm statistics the averaged network uses, the newest ones or some computed afresh for it.
"""

from __future__ import annotations

import torch

from algorithms.updates import Parameters


@torch.no_grad()
def average(previous: Parameters, parameters: Parameters, decay: float) -> Parameters:
    """`decay` parts of the average so far and `1 - decay` parts of the newest parameters; changes neither.

    The first average is the first parameters themselves: so the weights always sum to one, and there is no bias towards
    zero to correct.
    """
    assert previous.keys() == parameters.keys()
    newest = [parameters[name] for name in previous]
    averaged = torch._foreach_lerp(list(previous.values()), newest, 1 - decay)
    return dict(zip(previous, averaged, strict=True))
