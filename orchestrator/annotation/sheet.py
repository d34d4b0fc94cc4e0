"""A sheet: adversarial images to be labelled, made once, and everybody's answers beside it, kept as they are given."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.config import resolve
from orchestrator.evaluations.targets import Target, network_of
from orchestrator.folders import write_atomically, write_json
from orchestrator.suites import Entry, load_suite
from workers.cache import open_split
from workers.judge import JudgeTask, judge

PAGE = 25  # images
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")  # of an annotator, which becomes a file's
UNSURE = -1  # the answer "?"
COLUMNS = pa.schema([("index", pa.int64()), ("answer", pa.int64()), ("seconds", pa.float64())])


class NoneFellError(ValueError):
    """An attack that fools the model on none of the images: there is nothing to label."""


@final
@dataclass(frozen=True)
class Answer:
    """What an annotator said of an image."""

    index: int  # of the example within the test part
    answer: int  # a class, or UNSURE
    seconds: float  # it took, as the browser saw it


@final
@dataclass(frozen=True)
class Sheet:
    """A folder with images, what the model and the data set say of them, and a file of answers for each annotator."""

    folder: Path
    classes: tuple[str, ...]
    index: NDArray[np.int64]  # of the examples within the test part
    images: NDArray[np.float32]  # (count, channels, height, width) in [0, 1], adversarial
    label: NDArray[np.int64]  # of the clean images
    adversarial: NDArray[np.int64]  # what the model takes them for

    def order(self, annotator: str) -> list[int]:
        """The images in an annotator's own order, as places in the sheet."""
        seed = int.from_bytes(annotator.encode(), "big")
        return [int(place) for place in np.random.default_rng(seed).permutation(len(self.index))]

    def answers(self, annotator: str) -> dict[int, Answer]:
        """What the annotator has said so far, by the index of the example. Raises ValueError for an impossible name."""
        path = self._path(annotator)
        if not path.is_file():
            return {}
        rows = pq.ParquetFile(io.BytesIO(path.read_bytes())).read().to_pylist()
        return {row["index"]: Answer(**row) for row in rows}

    def give(self, annotator: str, answer: Answer) -> None:
        """Keeps an answer; a later one about the same image takes its place. Raises ValueError for what is none."""
        if answer.index not in self.index:
            raise ValueError(f"index: an image of the sheet, not {answer.index}")
        if not UNSURE <= answer.answer < len(self.classes):
            raise ValueError(f"answer: a class, 0 to {len(self.classes) - 1}, or {UNSURE} for ?, not {answer.answer}")
        given = self.answers(annotator) | {answer.index: answer}
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([asdict(one) for one in given.values()], schema=COLUMNS), buffer)
        write_atomically(self._path(annotator), buffer.getvalue())

    def annotators(self) -> list[str]:
        """Who has answered."""
        return sorted(path.stem for path in (self.folder / "answers").glob("*.parquet"))

    def _path(self, annotator: str) -> Path:
        if not NAME.fullmatch(annotator):
            raise ValueError(f"annotator: up to 40 letters, digits, _ and -, not {annotator[:40]!r}")
        return self.folder / "answers" / f"{annotator}.parquet"


def sheet_of(target: Target, suite: str, attack: str, count: int) -> Sheet:
    """The first `count` test images after an attack of a suite; made once, those that withstood it left out.

    Raises ValueError for an attack that the suite does not have, and NoneFellError, which is one, where no image fell.
    """
    asked = target.recipe.evaluation
    entry = _entry(suite, attack, target)
    slug = re.sub(r"\W+", "-", f"{suite}-{entry.label}-{asked.norm}-{asked.eps:g}-{count}")
    folder = target.folder.path / "annotations" / slug
    if not (folder / "sheet.npz").is_file():
        _make(folder, target, entry, count)
    with np.load(folder / "sheet.npz", allow_pickle=False) as stored:
        parts = {name: stored[name] for name in ("index", "images", "label", "adversarial")}
    return Sheet(folder, open_split(target.recipe.dataset, "test").classes, **parts)


def _entry(suite: str, attack: str, target: Target) -> Entry:
    asked = target.recipe.evaluation
    loaded = load_suite(suite, asked.norm, asked.eps)
    wanted = attack or loaded.shown
    for entry in loaded.attacks:
        if entry.label == wanted:
            return entry
    raise ValueError(f"attack: one of {', '.join(entry.label for entry in loaded.attacks)}, not {wanted!r}")


def _make(folder: Path, target: Target, entry: Entry, count: int) -> None:
    """Attacks the images and keeps what fell."""
    split = open_split(target.recipe.dataset, "test")
    indices = np.arange(min(count, len(split)))
    task = JudgeTask("test", indices, entry.attack, entry.label, target.recipe.seed, entry.targets, len(indices))
    judged = judge(network_of(target, split).eval(), split, task)
    fell = judged.success & (judged.predicted == judged.label)
    if not fell.any():
        raise NoneFellError(
            f"{entry.label}: no image of the first {count} fell: choose a stronger attack or a larger radius"
        )
    parts: dict[str, Any] = {
        "index": judged.index[fell],
        "images": judged.kept.adversarial[fell],
        "label": judged.label[fell],
        "adversarial": judged.predicted_adv[fell],
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **parts)
    write_json(folder / "attack.json", resolve(entry))
    write_atomically(folder / "sheet.npz", buffer.getvalue())
