from __future__ import annotations

from types import ModuleType

import recsys
from recsys import errors


def test_all_is_sorted_and_names_nothing_twice() -> None:
    assert recsys.__all__ == sorted(set(recsys.__all__))


def test_all_names_everything_of_ours_that_can_be_imported_from_the_package() -> None:
    ours = {
        name
        for name, value in vars(recsys).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and str(getattr(value, "__module__", "")).startswith("recsys")
    }
    assert ours == set(recsys.__all__)


def test_what_is_exported_is_documented() -> None:
    for name in recsys.__all__:
        assert getattr(recsys, name).__doc__


def test_the_version_is_the_one_that_is_installed() -> None:
    assert recsys.__version__.split(".")[0].isdigit()


def test_the_tree_of_errors_in_the_docstring_is_complete() -> None:
    raised = {
        name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    drawn = {line.strip("├└│─ ").split(" ")[0] for line in (errors.__doc__ or "").splitlines()}
    assert raised.keys() <= drawn
    assert all(issubclass(value, errors.RecsysError) for value in raised.values())
