"""Hundreds of hostile and broken inputs, given to the command itself: one line of error each, no bug, no damage.

Damage is code that ran, a file that was read or written where none should be, or a file of the run that changed.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as pack
from typer.testing import CliRunner

from orchestrator.checkpoints import Checkpoint, encode
from orchestrator.cli import app
from orchestrator.config import resolve
from orchestrator.folders import RunFolder, write_json
from orchestrator.plan import work_of
from orchestrator.recipe import Recipe
from workers.trainer import Trainer

CANARY = "canary"  # what hostile code would write, into the current folder
RECIPE = Recipe(name="victim")
LIMIT = 700  # characters of an error


class Pickled:
    """Unpickling it writes the canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({CANARY!r}, 'w').close()",)


PICKLE = pickle.dumps(Pickled())
CODE = f"__import__('os').system('touch {CANARY}')"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path / "cache"))


class Refusal(NamedTuple):
    """How the command ended."""

    code: int
    said: str


def refusal(*typed: str) -> Refusal:
    """Types a command that must fail as it should."""
    done = CliRunner().invoke(app, list(typed))
    said = done.stderr.strip()
    last = said.splitlines()[-1] if said else ""
    assert done.exit_code in (1, 2), (typed, done.exit_code, done.output)
    assert last, typed
    assert len(last) < LIMIT, last
    assert not re.search(r"Traceback|a bug:|0x[0-9a-f]{8}", said), said
    assert last.isprintable(), last
    assert not Path(CANARY).exists(), typed
    return Refusal(done.exit_code, last)


def contents(folder: Path) -> dict[str, str]:
    """All files below a folder, by their digest; what is cached of data is no one's loss."""
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Recipes

HOSTILE_VALUES = [
    CODE,
    "$(touch canary)",
    "`touch canary`",
    "; touch canary",
    "| touch canary",
    "{{ 7 * 7 }}",
    "%(x)s%n",
    "../../../../etc/passwd",
    "/etc/passwd",
    "~root/.ssh/id_rsa",
    "file:///etc/passwd",
    "os.system",
    "builtins.exec",
    "pgd;import os",
    "__init__",
    "__class__",
    "..",
    ".",
    "",
    " ",
    "a\nb",
    "\u202egnp.exe",
    "\ud7ff",
    "\x00",
    "\x1b[2J",
    "x" * 100_000,
    "none",
    "NaN",
    "1e999",
    "0x10",
    "8/0",
]
TEXT_KEYS = [  # a text that is none of those that may stand there
    "dataset.name",
    "model.name",
    "defense.name",
    "train.exchange",
]


def hostile_recipes() -> Iterator[tuple[str, bytes]]:
    for key in TEXT_KEYS:
        for number, value in enumerate(HOSTILE_VALUES[:25]):
            yield f"{key} {number}", f"{key} = {json.dumps(value)}".encode("utf-8", "replace")
    for key in ("train.epochs", "seed", "train.shard", "workers.attackers", "workers.trainers", "train.lag"):
        for value in ("-1", "1.5", "true", '"1"', "[1]", "{}", "9" * 5000, "1979-05-27", "nan", "2.0e3"):
            yield f"{key} = {value[:9]}", f"{key} = {value}".encode()
    for path in ("/etc", "../..", "~", "/proc/self/root", "//host/share", "/dev/zero", "a\\u0000b"):
        yield f"folder {path}", f'tracking.folder = "{path}"'.encode()
        yield f"data {path}", f'dataset = {{name = "parquet", folder = "{path}"}}'.encode()
        yield f"suite {path}", f'evaluation.suite = "{path}/x.toml"'.encode()
    yield from {
        "nothing but brackets": b"[" * 50_000,
        "inline tables": b"a = " + b"{a = " * 5_000,
        "dotted": b".".join([b"a"] * 20_000) + b" = 1",
        "not UTF-8": b"\xff\xfe\x00seed = 1",
        "UTF-16": "seed = 1".encode("utf-16"),
        "a pickle": PICKLE,
        "ELF": b"\x7fELF" + bytes(range(256)) * 20,
        "huge": b"#" * (1 << 20),
        "a key of megabytes": b"a" * 200_000 + b" = 1",
        "YAML's door": b"!!python/object/apply:os.system ['touch canary']",
        "JSON": b'{"seed": 1}',
        "duplicate": b"seed = 1\nseed = 2",
        "NUL": b"seed = 1\x00",
        "bare carriage return": b"seed = 1\rname = 2",
        "escape": b'name = "\\x41"',
        "prototype": b'"__proto__" = {polluted = 1}',
        "dunder": b'"__class__" = "x"',
        "a section twice": b"[train]\n[train]",
        "thousands of keys": b"\n".join(b"k%d = 1" % i for i in range(5000)),
    }.items()


def test_a_hostile_recipe_is_one_line_and_nothing_happens() -> None:
    tried = dict(hostile_recipes())
    assert len(tried) >= 190
    for name, content in tried.items():
        Path("recipe.toml").write_bytes(content)
        before = contents(Path.cwd())
        found = refusal("train", "recipe.toml", "--dry-run" if "data" not in name else "--quiet")
        assert found.code == 2, (name, found)
        assert contents(Path.cwd()) == before, name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: f"[train]\n{text}".encode("utf-8", "replace")))
def test_any_bytes_at_all_are_a_recipe_or_one_line(content: bytes) -> None:
    Path("recipe.toml").write_bytes(content)
    done = CliRunner().invoke(app, ["train", "recipe.toml", "--dry-run"])
    if done.exit_code:
        refusal("train", "recipe.toml", "--dry-run")


@pytest.mark.parametrize("value", HOSTILE_VALUES[:16])
@pytest.mark.parametrize("form", ["{}=1", "train.epochs={}", "dataset.name={}", "{}"])
def test_a_hostile_override_is_one_line(form: str, value: str) -> None:
    Path("recipe.toml").write_bytes(b"")
    assert refusal("train", "recipe.toml", form.format(value), "--dry-run").code == 2


# Data


def parquet(images: list[Any], labels: list[Any]) -> bytes:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    sink = pa.BufferOutputStream()
    cells = [{"bytes": data, "path": "/etc/passwd"} for data in images]
    pq.write_table(pa.table({"image": pa.array(cells, kind), "label": pa.array(labels)}), sink)
    return bytes(sink.getvalue())


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that claims a size, with an arbitrary body."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + b"\0\0\0\0" + body


def hostile_files() -> Iterator[tuple[str, bytes]]:
    whole = parquet([png(4, 4)] * 3, [0, 1, 0])
    for length in (0, 1, 4, 8, 50, len(whole) // 2, len(whole) - 1):
        yield f"cut to {length}", whole[:length]
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        yield f"byte {place}", whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
    for footer in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"footer of {footer}", whole[:-8] + struct.pack("<I", footer) + b"PAR1"
    for name, image in {
        "nothing": b"",
        "missing": None,
        "a bomb": png(2**31 - 1, 2**31 - 1),
        "wide": png(200_000, 1),
        "no size": png(0, 0),
        "text": b"hello",
        "a pickle": PICKLE,
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n(canary) (w) file\n",
        "a GIF's head": b"GIF89a",
        "a JPEG's head": b"\xff\xd8\xff\xe0",
    }.items():
        yield f"image: {name}", parquet([image], [0])
    for label in (-1, 2**40, None, 1.5, "0"):
        yield f"label: {label}", parquet([png(4, 4)], [label])


def test_a_hostile_data_file_is_one_line_and_nothing_happens() -> None:
    Path("recipe.toml").write_text('dataset = {name = "parquet", folder = "data"}\nworkers.backend = "inline"\n')
    Path("data").mkdir()
    tried = dict(hostile_files())
    assert len(tried) >= 60
    for name, content in tried.items():
        Path("data/train-00000-of-00001.parquet").write_bytes(content)
        Path("data/test-00000-of-00001.parquet").write_bytes(content)
        before = contents(Path.cwd())
        said = refusal("train", "recipe.toml").said
        assert "parquet" in said, (name, said)
        assert contents(Path.cwd()) == before, name


# Checkpoints and weights


@pytest.fixture(scope="module")
def state() -> np.ndarray[Any, Any]:
    return Trainer(work_of(RECIPE)).state()[1]


@pytest.fixture
def run(state: np.ndarray[Any, Any]) -> RunFolder:
    """An unfinished run with one good checkpoint."""
    folder = RunFolder(Path.cwd() / "runs" / "victim")
    write_json(folder.recipe, resolve(RECIPE))
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step-00000001.safetensors").write_bytes(encode(Checkpoint(1, state, {}, "x")))
    return folder


def signed(body: bytes) -> bytes:
    """With the checksum that makes a checkpoint of it."""
    return body + hashlib.sha256(body).digest()


def header(tensors: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file, well formed or not."""
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def hostile_weights() -> Iterator[tuple[str, bytes]]:
    eight = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}
    about = {"step": "1", "recipe": "x"}
    yield "nothing", b""
    yield "a pickle", PICKLE
    yield "torch's zip", b"PK\x03\x04" + PICKLE
    yield "NumPy's pickle", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + PICKLE
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield f"a header of {length}", header(b"{}", length=length)
    for name, tensors in {
        "a list": [],
        "text": "x",
        "nothing in it": {},
        "no offsets": {"trainer": {"dtype": "U8", "shape": [8]}},
        "negative": {"trainer": eight | {"data_offsets": [-1, 8]}},
        "beyond the end": {"trainer": eight | {"data_offsets": [0, 2**40]}},
        "overlapping": {"trainer": eight, "again": eight},
        "a strange type": {"trainer": eight | {"dtype": "PICKLE"}},
        "a wrong shape": {"trainer": eight | {"shape": [9]}},
        "a huge shape": {"trainer": eight | {"shape": [2**62, 8]}},
        "no metadata": {"trainer": eight},
        "metadata that is a number": {"trainer": eight, "__metadata__": 5},
        "no step": {"trainer": eight, "__metadata__": {"recipe": "x"}},
        "a step that is code": {"trainer": eight, "__metadata__": about | {"step": CODE}},
        "a step of megabytes": {"trainer": eight, "__metadata__": about | {"step": "9" * 100_000}},
        "no trainer": {"other": eight, "__metadata__": about},
        "a trainer that is none": {"trainer": eight, "__metadata__": about},
        "a path": {"../../../etc/passwd": eight, "__metadata__": about},
        "a snapshot of nothing": {"trainer": eight, "snapshot/x": eight | {"data_offsets": [8, 16]}},
    }.items():
        yield name, header(tensors, bytes(16) if "snapshot" in name else bytes(8))
    yield "deep", header(b"[" * 100_000)
    trained = {"model/other": np.zeros(3, np.float32), "version": np.zeros((), np.int64)}
    yield "another model", pack({"trainer": np.frombuffer(pack(trained), np.uint8)}, metadata=about)
    yield "a trainer that is a pickle", pack({"trainer": np.frombuffer(PICKLE, np.uint8)}, metadata=about)


@pytest.mark.parametrize("kind", ["step-00000002.safetensors", "weights.safetensors", "model.safetensors"])
def test_hostile_weights_are_one_line_and_nothing_happens(kind: str, run: RunFolder) -> None:
    path = run.path / "checkpoints" / kind if kind != "model.safetensors" else run.model
    tried = dict(hostile_weights())
    assert len(tried) >= 30
    for name, content in tried.items():
        path.write_bytes(signed(content) if kind.startswith("step-") else content)
        before = contents(Path.cwd())
        target = str(run.path) if kind == "model.safetensors" else str(path)
        said = refusal("evaluate", target, "--suite", "demo").said
        assert kind in said or "do not fit the model" in said, (name, said)
        assert contents(Path.cwd()) == before, name


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b'{"steps": "x"}', b'{"steps": [1]}', b"[" * 50_000, PICKLE], ids=repr
)
@pytest.mark.parametrize("name", ["plan.json", "recipe.json", "records/records.jsonl", "records/cursor.json"])
def test_a_run_that_a_stranger_wrote_can_be_looked_at(name: str, content: bytes, run: RunFolder) -> None:
    path = run.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    done = CliRunner().invoke(app, ["status", "victim"])
    if done.exit_code:
        refusal("status", "victim")
    assert not Path(CANARY).exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"[" * 50_000, PICKLE, b'{"seed": "x"}', b"\xff"], ids=repr
)
def test_a_run_whose_recipe_a_stranger_wrote_is_not_evaluated(content: bytes, run: RunFolder) -> None:
    run.recipe.write_bytes(content)
    for typed in (["evaluate", "victim"], ["train", "--resume", "victim"]):
        assert "recipe.json" in refusal(*typed).said
