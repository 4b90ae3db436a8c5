"""The structure of the code, from its imports: in one picture, which docs/architecture.md holds, and in figures.

`python -m tests.architecture` prints the figures as a table; `python -m tests.architecture OLD .` prints those of the
checkout in the folder OLD beside those of this one.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

from tests.syntax import nodes_in

PROJECT = Path(__file__).parents[1]
PACKAGES = ("api", "consumer", "trainer", "recsys")


@dataclass(frozen=True)
class Function:
    """A function or method."""

    path: Path
    name: str
    n_lines: int
    """Without decorators."""
    n_parameters: int
    """Without self."""


@dataclass(frozen=True)
class Structure:
    """What one checkout is made of.

    Attributes
    ----------
    rooms : frozenset of str
        The services, the packages in recsys, and its loose modules; by their names in Python.
    arrows : frozenset of (str, str)
        Which room imports from which other one.
    pure : frozenset of str
        Rooms that may not know Kafka, Redis, files and settings.
    layers : int
        Of the import contract.
    """

    root: Path
    rooms: frozenset[str]
    arrows: frozenset[tuple[str, str]]
    pure: frozenset[str]
    layers: int
    modules: dict[Path, int]
    """Lines of each module, by its path in the checkout."""
    functions: tuple[Function, ...]

    @property
    def packages(self) -> list[Path]:
        """The folders in recsys that hold code."""
        return sorted({path.parent for path in self.modules if len(path.parts) > 2 and path.parts[0] == "recsys"})

    def files_in(self, folder: Path) -> int:
        """Return how many files lie in a folder itself."""
        return sum(path.is_file() for path in (self.root / folder).iterdir())


def read_structure(root: Path = PROJECT) -> Structure:
    """Read the structure of a checkout."""
    sys.path.insert(0, str(root))
    try:
        graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    finally:
        sys.path.pop(0)
    arrows = {
        (_room_of(module), _room_of(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }
    linter = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in linter if contract["type"] == "layers")
    pure = [
        module
        for contract in linter
        if "recsys.settings" in contract.get("forbidden_modules", ())
        for module in contract["source_modules"]
    ]
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return Structure(
        root=root,
        rooms=frozenset(_room_of(module) for module in graph.modules) - {""},
        arrows=frozenset((one, other) for one, other in arrows if one != other and one and other),
        pure=frozenset(pure),
        layers=len(layers),
        modules={path.relative_to(root): len(path.read_text().splitlines()) for path in paths},
        functions=tuple(function for path in paths for function in _functions_in(path, root)),
    )


def _room_of(module: str) -> str:
    """Return the room that a module lies in; empty for `recsys` itself, which is the version and the command."""
    package, *rest = module.split(".")
    if package != "recsys":
        return package
    return f"recsys.{rest[0]}" if rest and rest[0] != "__main__" else ""


def _functions_in(path: Path, root: Path) -> Iterator[Function]:
    for node in nodes_in(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            n_parameters = len(given) - (given[:1] in (["self"], ["cls"]))
            n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(path.relative_to(root), node.name, n_lines, n_parameters)


def picture(structure: Structure) -> str:
    """Return the rooms and their arrows as a Mermaid diagram.

    An arrow that follows from others is left out: if A imports from B and B from C, A's imports from C are not drawn.
    """
    below: dict[str, set[str]] = {room: set() for room in structure.rooms}
    for one, other in structure.arrows:
        below[one].add(other)

    def reached(room: str) -> set[str]:
        return below[room].union(*(reached(other) for other in below[room]))

    lines = []
    for room, others in sorted(below.items()):
        drawn = [one for one in sorted(others) if not any(one in reached(between) for between in others - {one})]
        if drawn:
            lines.append(f"    {_short(room)} --> {' & '.join(map(_short, drawn))}")
    services = [room for room in sorted(structure.rooms) if "." not in room]
    styles = [
        "    classDef service stroke-width: 3px",
        f"    class {','.join(services)} service",
        "    classDef pure stroke-dasharray: 4",
        f"    class {','.join(map(_short, sorted(structure.pure)))} pure",
    ]
    return "\n".join(["```mermaid", "flowchart TD", *lines, *styles, "```"]) + "\n"


def _short(room: str) -> str:
    return room.removeprefix("recsys.")


def figures(structure: Structure) -> dict[str, str]:
    """Return what the structure is like in figures, by what they mean."""
    functions, modules = structure.functions, structure.modules
    longest = max(modules, key=lambda path: modules[path])
    slowest = max(functions, key=lambda function: function.n_lines)
    n_files = {folder.as_posix(): structure.files_in(folder) for folder in structure.packages}
    fullest = max(n_files, key=lambda folder: n_files[folder])
    many = sorted({f"{one.path.as_posix()}: {one.name}" for one in functions if one.n_parameters > 10})
    return {
        "folders in recsys": f"{len(n_files)}",
        "loose files in recsys": f"{structure.files_in(Path('recsys'))}",
        "most files in one folder of recsys": f"{n_files[fullest]} ({fullest})",
        "rooms and loose modules, with the services": f"{len(structure.rooms)}",
        "arrows between them": f"{len(structure.arrows)}",
        "layers of the import contract": f"{structure.layers}",
        "modules, lines": f"{len(modules)}, {sum(modules.values()):,}",
        "longest module": f"{modules[longest]} lines ({longest.as_posix()})",
        "modules over 400 lines": f"{sum(lines > 400 for lines in modules.values())}",
        "functions": f"{len(functions):,}",
        "longest function": f"{slowest.n_lines} lines ({slowest.path.as_posix()}: {slowest.name})",
        "functions over 50 lines": f"{sum(one.n_lines > 50 for one in functions)}",
        "functions over 60 lines": f"{sum(one.n_lines > 60 for one in functions)}",
        "functions with over 10 parameters": f"{len(many)} ({', '.join(many)})",
    }


def main() -> None:
    """Print the figures of one or more checkouts."""
    parser = argparse.ArgumentParser(prog="python -m tests.architecture", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[PROJECT], help="folders; this one if left out")
    found = [figures(read_structure(folder.resolve())) for folder in parser.parse_args().checkouts]
    print("| figure |" + " |" * len(found))
    print("|---|" + "---|" * len(found))
    for name in found[0]:
        print(f"| {name} | {' | '.join(one[name] for one in found)} |")


if __name__ == "__main__":
    main()
