from __future__ import annotations

import recsys
from recsys import errors


def test_the_version_is_the_one_that_is_installed() -> None:
    assert recsys.__version__.split(".")[0].isdigit()


def test_the_tree_of_errors_in_the_docstring_is_complete() -> None:
    raised = {
        name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    drawn = {line.strip("├└│─ ").split(" ")[0] for line in (errors.__doc__ or "").splitlines()}
    assert raised.keys() <= drawn
    assert all(issubclass(value, errors.RecsysError) for value in raised.values())
