"""`recsys.client` alone: a program that only asks the HTTP API loads little and installs little."""

from __future__ import annotations

from tests.packages import PYPROJECT, modules_of, run_with_only

HEAVY = ("confluent_kafka", "fsspec", "numba", "numpy", "pandas", "pyarrow", "redis", "scipy", "typer")


def test_importing_the_client_loads_none_of_the_heavy_libraries() -> None:
    code = f"import sys, recsys.client; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    assert run_with_only(None, "-c", code).stdout.split() == []


def test_the_client_works_where_only_the_base_dependencies_are_installed() -> None:
    base = modules_of(PYPROJECT["project"]["dependencies"])
    assert base >= {"httpx", "orjson", "pydantic"}
    assert base.isdisjoint(HEAVY)
    code = (
        "import recsys.client, recsys\n"
        "with recsys.client.Client('http://127.0.0.1:9') as client:\n"
        "    try:\n"
        "        client.recommendations('42')\n"
        "    except recsys.client.ApiUnavailable as error:\n"
        "        print('away', recsys.__version__)\n"
    )
    outcome = run_with_only(base, "-c", code)
    assert outcome.stdout == f"away {PYPROJECT['project']['version']}\n", outcome.stderr
