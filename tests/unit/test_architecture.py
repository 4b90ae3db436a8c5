"""The code keeps its structure: rooms, layers, sizes, and the picture and table of docs/architecture.md."""

from __future__ import annotations

import os
import re

import pytest

from tests.architecture import PROJECT, Structure, picture, read_structure

DOCUMENT = PROJECT / "docs" / "architecture.md"
_START = "<!-- picture: written by tests/unit/test_architecture.py -->\n"
_END = "<!-- end of picture -->\n"
NOT_LISTED = {"__init__", "__main__"}


@pytest.fixture(scope="module")
def structure() -> Structure:
    return read_structure()


def test_the_picture_is_that_of_the_imports(structure: Structure) -> None:
    before, found = DOCUMENT.read_text().split(_START)
    found, after = found.split(_END)
    if os.environ.get("UPDATE_DOCUMENTS"):
        found = picture(structure)
        DOCUMENT.write_text(before + _START + found + _END + after)
    assert found == picture(structure), "run UPDATE_DOCUMENTS=1 make test ARGS=tests/unit/test_architecture.py"


def test_the_table_names_every_module_in_its_room(structure: Structure) -> None:
    rows = re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    named = {room: set(re.findall(r"`(\w+)`", text.replace("`Event`", ""))) for room, text in rows}
    there: dict[str, set[str]] = {}
    for path in structure.modules:
        if path.stem not in NOT_LISTED:
            there.setdefault(path.parent.as_posix(), set()).add(path.stem)
    assert named == there


def test_recsys_is_few_rooms_and_few_loose_files(structure: Structure) -> None:
    assert len(structure.packages) <= 15
    assert structure.files_in(PROJECT / "recsys") <= 8


def test_the_import_contract_has_few_layers(structure: Structure) -> None:
    assert structure.layers <= 15


def test_no_module_is_over_400_lines(structure: Structure) -> None:
    assert {path.as_posix(): lines for path, lines in structure.modules.items() if lines > 400} == {}


def test_only_compiled_code_and_commands_have_over_10_parameters(structure: Structure) -> None:
    many = {
        f"{function.path.as_posix()}: {function.name}"
        for function in structure.functions
        if function.n_parameters > 10
        and not function.path.stem.endswith("_kernels")  # numba passes arrays, no objects
        and not function.name.endswith("_command")  # Typer makes an option of each
    }
    assert many == set()


@pytest.mark.parametrize(
    ("path", "name"),
    [("consumer/loop.py", "step"), ("trainer/round.py", "run"), ("api/user_lists.py", "user_lists")],
)
def test_each_route_reads_in_one_function(structure: Structure, path: str, name: str) -> None:
    (route,) = [one for one in structure.functions if one.path.as_posix() == path and one.name == name]
    assert route.n_lines <= 60
