"""A network in the place of an annotator: what it takes another model's adversarial images for.

It stands in for people where there are none. It is no person: noise that fools one network may fool another, and a
robust one is the better reader.
"""

from __future__ import annotations

import torch

from orchestrator.annotation.results import tally
from orchestrator.annotation.sheet import Sheet
from orchestrator.evaluations.targets import Target, network_of
from workers.cache import open_split

BATCH = 256


def read(sheet: Sheet, reader: Target) -> dict[str, float]:
    """Shares of the images that the reader takes for the adversarial class (`changed`) and the original (`unchanged`).

    Raises ValueError for a reader of other images or classes.
    """
    split = open_split(reader.recipe.dataset, "test")
    if split.shape != sheet.images.shape[1:] or split.classes != sheet.classes:
        raise ValueError(f"reader: a model for the sheet's images and classes; {reader.folder.path} is for others")
    network = network_of(reader, split)
    with torch.no_grad():
        said = torch.cat([network(part).argmax(1) for part in torch.from_numpy(sheet.images).split(BATCH)]).tolist()
    truth = zip(sheet.label.tolist(), sheet.adversarial.tolist(), strict=True)
    found = tally(reader.folder.name, list(zip(truth, said, strict=True)))
    assert found.changed is not None
    assert found.unchanged is not None
    return {"changed": found.changed.value, "unchanged": found.unchanged.value}
