"""What documents name exists: files, links between documents, make targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.faults import guarantees

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted((PROJECT / "docs" / "decisions").glob("*.md")),
]
_ROOMS = ("api", "benchmarks", "consumer", "docs", "recsys", "requirements", "tests", "trainer")
_PATH = re.compile(rf"(?:{'|'.join(_ROOMS)})(?:/[\w.*<>-]+)+/?|[\w.-]+\.(?:toml|yml)|Makefile|Dockerfile")
by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def without_blocks(document: Path) -> str:
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def named_paths(document: Path) -> Iterator[str]:
    """Yield the paths of this repository that stand in backticks, as a whole or as a word of a command."""
    for quoted in re.findall(r"`([^`\n]+)`", without_blocks(document)):
        for word in quoted.split():
            if _PATH.fullmatch(word):
                yield word


@by_document
def test_paths_that_documents_name_exist(document: Path) -> None:
    assert not [path for path in named_paths(document) if not exists(path)]


def exists(path: str) -> bool:
    """Whether a path, which may have wildcards or be a module without its ending, is in this repository."""
    return any(any(PROJECT.glob(f"{path.rstrip('/')}{ending}")) for ending in ("", ".py"))


@by_document
def test_make_targets_that_documents_name_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = re.findall(r"^make ([^\n]*)|`make ([^`\n]*)", document.read_text(), flags=re.MULTILINE)
    named = {word for pair in commands for word in " ".join(pair).split() if re.fullmatch("[a-z][a-z-]*", word)}
    assert named <= targets


def test_paths_are_found_in_documents() -> None:
    assert "recsys/model/top_n.py" in set(named_paths(PROJECT / "docs" / "performance.md"))


@by_document
def test_links_between_documents_resolve(document: Path) -> None:
    text = without_blocks(document)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for link in links:
        name, _, anchor = unquote(link).partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 160


def test_outcomes_of_faults_are_read_as_they_are_written() -> None:
    """Rows of scenarios that a run leaves out stay as they are."""
    text = guarantees.DOCUMENT.read_text()
    table = text.partition(guarantees._BEGIN)[2].partition(guarantees._END)[0]
    rows = guarantees.rows_of(table)
    assert len(rows) > 50
    assert guarantees.table(rows) == table
    again = rows[3] | {"events": rows[3]["events"] + 1}
    assert guarantees.table([*rows, again]).count("\n") == table.count("\n")


@by_document
def test_tests_that_documents_name_exist(document: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", without_blocks(document)))
    there = {
        name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert not {name for name in named - there if not exists(f"tests/**/{name}")}
