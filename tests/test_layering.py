"""The four packages import downwards only, and nothing that an installation would lack."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "persona": {"persona"},
    "recsys": {"recsys"},
    "simulators": {"simulators", "persona", "recsys"},
    "app": {"app", "simulators", "persona", "recsys"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that `source` imports, at any depth or through `import_module`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield node.lineno, module
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(str(module)), *_]
            ):
                if name in {"import_module", "__import__"}:
                    yield node.lineno, module


def wrong_edges(package: str, source: str) -> list[str]:
    found = ((line, name.partition(".")[0]) for line, name in imported(source))
    return [f"{line}: {package} -> {top}" for line, top in found if top in OURS - MAY_IMPORT[package]]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_package_imports_downwards_only(package: str) -> None:
    found = modules(package)
    assert found
    wrong = {
        str(path.relative_to(ROOT)): edges
        for path in found
        if (edges := wrong_edges(package, path.read_text(encoding="utf-8")))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("persona", "import recsys.models"),
        ("persona", "from simulators import types"),
        ("recsys", "def f():\n    from persona.types import Condition"),
        ("recsys", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import persona"),
        ("simulators", "import importlib\nimportlib.import_module('app.run')"),
        ("app", "from tests.helpers import tiny_models"),
    ],
)
def test_planted_wrong_edge_is_caught(package: str, source: str) -> None:
    assert len(wrong_edges(package, source)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("simulators", "import persona.types, recsys"),
        ("app", "from simulators.world import Oracle"),
        ("persona", "from .types import Condition\nimport recsystem"),
    ],
)
def test_allowed_edge_is_not_caught(package: str, source: str) -> None:
    assert wrong_edges(package, source) == []


def declared(project: dict[str, object]) -> set[str]:
    """Names of the distributions that an installation brings, with the extras that the packages import on use."""
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict) and isinstance(project["dependencies"], list)
    return {
        re.split(r"[^\w.-]", line)[0].lower()
        for line in chain(project["dependencies"], extras["ray"], extras["llm"], extras["baselines"])
    }


def test_every_import_of_the_packages_is_a_declared_dependency() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        known = declared(tomllib.load(file)["project"])
    distributions = packages_distributions()
    missing = set()
    for path in (path for package in MAY_IMPORT for path in modules(package)):
        for line, name in imported(path.read_text(encoding="utf-8")):
            top = name.partition(".")[0]
            if top in OURS or top in sys.stdlib_module_names:
                continue
            providers = {found.lower() for found in distributions.get(top, [top])}
            if not providers & known:
                missing.add(f"{path.relative_to(ROOT)}:{line} {top}")
    assert not missing
