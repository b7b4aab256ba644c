"""The documents keep their form, what they name exists, and public names are documented."""

import ast
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("persona", "recsys", "simulators", "app")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
ENTRY = re.compile(r"- (\[(Breaking|Numbers)\] )*\S.*[.:]$")
RELEASE = re.compile(r"## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$")
LOG_HEAD = re.compile(r"^## (\d{4}-\d{2}-\d{2}) — .+$", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def entries(text: str) -> list[str]:
    """Changelog entries, each on one line again."""
    return [" ".join(found.split()) for found in re.findall(r"^- .+(?:\n  .+)*", text, re.MULTILINE)]


def paper_rows(text: str) -> list[list[str]]:
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0].split("|")[1:6] == [
        " paper ",
        " equation ",
        " file ",
        " test ",
        " what we changed and why ",
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def log_entries(text: str) -> list[tuple[str, str]]:
    """Date and body of every entry outside the fenced template."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    parts = LOG_HEAD.split(outside)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_changelog_keeps_its_format() -> None:
    text = read("CHANGELOG.md")
    heads = re.findall(r"^## .+$", text, re.MULTILINE)
    assert text.startswith("# Changelog\n")
    assert heads[0] == "## [Unreleased]"
    assert all(RELEASE.match(head) for head in heads[1:])
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= SECTIONS
    found = entries(text)
    assert found
    assert [entry for entry in found if not ENTRY.match(entry)] == []


def test_every_paper_leads_to_a_file_and_a_test() -> None:
    for row in paper_rows(read("docs/papers.md")):
        assert len(row) == 5 and all(row), row
        for cell in row[2:4]:
            paths = re.findall(r"`([^`]+)`", cell)
            assert paths, row
            assert [path for path in paths if not (ROOT / path.partition("::")[0]).is_file()] == []


def test_log_is_dated_newest_first_and_complete() -> None:
    found = log_entries(read("docs/log.md"))
    dates = [date for date, _ in found]
    assert dates == sorted(dates, reverse=True)
    for date, body in found:
        for part in ("change", "command", "numbers", "verdict"):
            assert re.search(rf"^- {part}: \S", body, re.MULTILINE), (date, part)


def test_readme_shows_the_two_commands_and_its_example_runs() -> None:
    text = read("README.md")
    assert re.search(r"^make run\nmake test$", text, re.MULTILINE)
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        test = doctest.DocTestParser().get_doctest(example, {}, f"README example {number}", "README.md", 0)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


def test_every_path_in_the_documents_exists() -> None:
    pattern = re.compile(r"`((?:app|persona|recsys|simulators|tests|docs)/[\w/.-]+\.(?:py|md|toml))`")
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {(d.name, path) for d in documents for path in pattern.findall(d.read_text(encoding="utf-8"))}
    assert named
    assert {(document, path) for document, path in named if not (ROOT / path).is_file()} == set()


def public_without_docstring(tree: ast.Module) -> list[str]:
    """Public classes, functions and methods that say nothing of themselves."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    methods = [m for c in found if isinstance(c, ast.ClassDef) for m in c.body if isinstance(m, kinds)]
    named = [*found, *(method for method in methods if not method.name.startswith("_"))]
    silent = [node.name for node in named if not ast.get_docstring(node) and not is_overload(node)]
    return silent if ast.get_docstring(tree) else ["the module", *silent]


def is_overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def bound(tree: ast.Module) -> set[str]:
    """Names that the top level of a module defines or imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add(other or name.partition(".")[0])
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.read_text(encoding="utf-8").strip():
        assert public_without_docstring(tree) == []
    names = exported(tree)
    if names is not None:
        assert set(names) <= bound(tree)


def test_a_silent_name_is_caught() -> None:
    head = '"""Says something."""\nclass A:\n    """Too."""\n'
    source = head + "    def f(self): ...\n    def _g(self): ...\ndef h(): ..."
    assert public_without_docstring(ast.parse(source)) == ["h", "f"]


def test_licence_is_the_full_text() -> None:
    text = read("LICENSE")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
