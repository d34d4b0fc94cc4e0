"""What stands in files rather than in code: clusters, pinned packages, documentation, the shape of the source."""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray.autoscaler._private.util import prepare_config, validate_config

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.defenses import Defense
from algorithms.search import search
from orchestrator.config import load_recipe

ROOT = Path(__file__).parent.parent
PACKAGES = ("algorithms", "workers", "orchestrator")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md"))
CLUSTERS = ["cluster.yaml", "deploy/cluster-gcp.yaml", "deploy/cluster-local.yaml"]
CLOUDS = CLUSTERS[:2]
NO_PAPER = {"standard"}  # nothing to cite


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


def code(text: str, language: str) -> list[str]:
    """The blocks of code in a Markdown text."""
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


# Clusters


@pytest.mark.parametrize("path", CLUSTERS)
def test_ray_accepts_the_cluster(path: str) -> None:
    validate_config(prepare_config(yaml.safe_load(read(path))))


def test_ray_would_refuse_a_wrong_cluster() -> None:
    cluster = yaml.safe_load(read("cluster.yaml"))
    wrong = copy.deepcopy(cluster)
    wrong["available_node_types"]["attack"]["resources"]["GPU"] = 0.5
    with pytest.raises(ValidationError):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("path", CLOUDS)
def test_attackers_scale_on_spot_machines_and_the_rest_is_on_demand(path: str) -> None:
    cluster = yaml.safe_load(read(path))
    nodes = cluster["available_node_types"]
    assert "GPU" not in nodes[cluster["head_node_type"]]["resources"]
    assert nodes["attack"]["min_workers"] < nodes["attack"]["max_workers"]
    assert cluster["max_workers"] == sum(node["max_workers"] for node in nodes.values())
    for name, node in nodes.items():
        text = str(node["node_config"])
        assert ("spot" in text or "preemptible" in text) == (name == "attack")
        assert (node["resources"].get("GPU", 0) > 0) == (name != cluster["head_node_type"])


@pytest.mark.parametrize("path", CLUSTERS)
def test_every_start_of_ray_asks_for_the_token(path: str) -> None:
    cluster = yaml.safe_load(read(path))
    starts = [c for kind in ("head", "worker") for c in cluster[f"{kind}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in start for start in starts)
    assert "~/.ray/auth_token" in cluster["file_mounts"].values()


def test_the_ray_job_names_one_image_and_this_ray() -> None:
    claim, job = yaml.safe_load_all(read("deploy/rayjob.yaml"))
    assert (job["apiVersion"], job["kind"], claim["kind"]) == ("ray.io/v1", "RayJob", "PersistentVolumeClaim")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pins()["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    cloud = yaml.safe_load(read("cluster.yaml"))["docker"]["image"]
    assert {container["image"] for container in containers} == {cloud}
    assert all(container["resources"]["requests"] == container["resources"]["limits"] for container in containers)
    assert ["nvidia.com/gpu" in container["resources"]["limits"] for container in containers] == [False, True, True]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in groups[0]["template"]["spec"]["volumes"]]
    assert claims == [claim["metadata"]["name"]]


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    lines = read("deploy/Dockerfile").replace("\\\n", " ").splitlines()
    assert [line for line in lines if line.startswith("FROM")] == [f"FROM rayproject/ray:{pins()['ray']}-py311-gpu"]
    assert all("--no-cache-dir --constraint" in line for line in lines if "pip install" in line)
    assert [line for line in lines if line.startswith("USER")][-1] not in ("USER root", "USER 0")
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[2:-1]]
    assert set(PACKAGES) < set(copied)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint")
def test_hadolint_has_nothing_to_say_about_the_image() -> None:
    checked = subprocess.run(["hadolint", "deploy/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_all_clouds_run_the_image_of_this_version() -> None:
    images = re.findall(
        r"registry\.example\.com/\S+",
        "".join(read(p) for p in (*CLOUDS, "deploy/rayjob.yaml", "deploy/Dockerfile", "docs/cluster.md")),
    )
    assert set(images) == {f"registry.example.com/sparring:{project()['version']}"}


# Packages


def test_constraints_pin_one_version_of_everything_that_is_needed() -> None:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert len(pins()) == len(lines)
    extras = project()["optional-dependencies"]
    for text in [*project()["dependencies"], *extras["dev"], *extras["docs"], *extras["peers"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), text


def test_torch_is_pinned_without_a_build() -> None:
    assert (pins()["torch"], pins()["torchvision"]) == ("2.13.0", "0.28.0")


def test_every_package_that_is_imported_is_declared() -> None:
    distributions = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "google": "protobuf"}
    declared = {canonicalize_name(Requirement(text).name) for text in project()["dependencies"]}
    for path in SOURCES:
        for name in imported(path) - {*PACKAGES, *sys.stdlib_module_names}:
            assert canonicalize_name(distributions.get(name, name)) in declared, f"{path}: {name}"


def imported(path: Path) -> set[str]:
    """The top-level names of the packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


# Documentation


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What docs/gen_pages.py defines."""
    return runpy.run_path(str(ROOT / "docs" / "gen_pages.py"), run_name="gen_pages")


@pytest.fixture(scope="module")
def pages(made: dict[str, Any]) -> dict[str, str]:
    """The pages that it makes."""
    return made["pages"]()


def test_every_plugin_has_a_page_with_all_its_fields(made: dict[str, Any], pages: dict[str, str]) -> None:
    for folder, kind in made["KINDS"].items():
        for name in plugins.names(kind.interface):
            page = pages[f"{folder}/{name}.md"]
            plugin = plugins.find(kind.interface, name)
            assert all(f"| `{field}` |" in page for field in inspect.signature(plugin).parameters), name
            assert f"({name}.md)" in pages[f"{folder}/index.md"]


def test_a_page_shows_types_defaults_and_comments(made: dict[str, Any]) -> None:
    page = made["plugin_page"]("attacks", "pgd")
    assert "| `norm` | `linf`, `l2`, `l1` | `'linf'` |" in page
    assert "| `eps` | `float` | `8 / 255` | radius, in pixel units |" in page
    assert "https://arxiv.org/abs/1706.06083" in page
    assert "| `attack` | [attack](../attacks/index.md) | `PGD()` |" in made["plugin_page"]("defenses", "adversarial")


def test_the_navigation_reaches_every_page(made: dict[str, Any], pages: dict[str, str]) -> None:
    given = re.findall(r"([\w/]+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    reached = {*given, *re.findall(r"[\w/]+\.md", str(made["navigation"]([{"": path} for path in given])))}
    written = {path.name for path in PAGES if not path.name.startswith("_")}
    assert reached == written | set(pages)


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path, pages: dict[str, str]) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        generated = path.parent.name == "docs" and target in pages
        assert generated or (path.parent / target).exists(), target


@pytest.mark.parametrize("interface", [Attack, Defense], ids=plugins.kind_of)
def test_methods_link_their_paper(interface: type[Any]) -> None:
    for name in set(plugins.names(interface)) - NO_PAPER:
        module = importlib.import_module(plugins.find(interface, name).__module__)
        assert re.search(r"https?://|No paper", module.__doc__ or ""), name


def test_the_readme_begins_with_what_a_user_must_know() -> None:
    text = read("README.md")
    head = text.partition("\n## ")[0]
    assert all(word in head for word in ("make demo", "make test", "[0, 1]", "normalise inside"))
    assert len(text.splitlines()) <= 130


def test_every_command_stands_in_the_readme() -> None:
    commands = {p.stem for p in (ROOT / "orchestrator" / "commands").glob("[!_]*.py")}
    assert commands <= set(re.findall(r"sparring (\w+)", read("README.md")))


def test_recipes_that_are_named_exist() -> None:
    there = {path.name for path in (ROOT / "recipes").glob("*.toml")}
    if not there:
        pytest.skip("no recipes yet")
    files = [ROOT / "README.md", *PAGES, *(ROOT / path for path in (*CLUSTERS, "deploy/rayjob.yaml", "Makefile"))]
    for path in files:
        assert set(re.findall(r"recipes/([\w-]+\.toml)", path.read_text(encoding="utf-8"))) <= there, path


def test_the_readme_attacks_a_model() -> None:
    example = code(read("README.md"), "python")[0]
    values: dict[str, Any] = {}
    exec(example, values)
    distance = torch.linalg.vector_norm((values["x_adv"] - values["x"]).flatten(1), dim=1)
    assert 0 < distance.max() <= 0.5 + 1e-5


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_what_examples_import_is_there(path: Path) -> None:
    for block in code(path.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


def test_the_tutorials_attack_works(tmp_path: Path) -> None:
    (example,) = [block for block in code(read("docs/tutorial.md"), "python") if "class Wander" in block]
    path = tmp_path / "wander.py"
    path.write_text(example, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("wander", path)
    assert spec
    assert spec.loader
    module = sys.modules["wander"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        x, y = torch.full((8, 1, 2, 2), 0.5), torch.zeros(8, dtype=torch.int64)
        attack = module.Wander(eps=0.3, steps=40)
        record = search(attack, BrighterThanHalf(), x, y, rng=torch.Generator().manual_seed(0))
    finally:
        del sys.modules["wander"]
    assert record.success.all()  # half of the ball is darker than the clean image
    assert (record.norm > 0).all()
    assert (record.norm <= 0.3 + 1e-6).all()
    assert record.forwards.max() <= 41
    assert not record.backwards.any()


class BrighterThanHalf(torch.nn.Module):
    """Class 0 for images that are not darker than half on average."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brightness = x.flatten(1).mean(1) - 0.5 + 1e-6
        return torch.stack([brightness, -brightness], dim=1)


def test_the_recipe_in_the_reference_loads(tmp_path: Path) -> None:
    (example,) = code(read("docs/_recipes.md"), "toml")
    path = tmp_path / "recipe.toml"
    path.write_text(example, encoding="utf-8")
    assert load_recipe(path).name == "digits-pgd"


@pytest.mark.parametrize(
    "path", ["README.md", "docs/tutorial.md", "docs/cluster.md", "cluster.yaml", "deploy/rayjob.yaml"]
)
def test_runs_that_are_shown_can_be_started(path: str) -> None:
    text = re.sub(r"\\?\n(?:#\s*|\s+)", " ", read(path))  # a command that goes on in the next line, in a comment or not
    commands = re.findall(r"sparring train (recipes/\S+\.toml)((?: +[a-z_.]+=\S+)*)", text)
    assert commands
    for recipe, changes in commands:
        if "wander" not in changes:  # the attack that the tutorial's reader writes
            load_recipe(ROOT / recipe, changes.split())


# The shape of the source


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
            assert node.args.kwarg is None, f"{node.name}: no **kwargs"


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"make (\w+)", script.read_text(encoding="utf-8")) == ["test"]


def test_make_has_every_target_that_is_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    texts = [read("README.md"), read("Makefile"), *(path.read_text(encoding="utf-8") for path in PAGES)]
    named = {
        name for text in texts for name in re.findall(r"(?:`|^|\$ )make (?:PYTHON=\S+ )?([a-z]+)", text, re.MULTILINE)
    }
    assert named <= targets


def test_there_is_a_licence() -> None:
    assert read("LICENSE").startswith("MIT License")
    assert project()["license"] == "MIT"
