"""Reserved users: what is one, and that rows of files do not count for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.data.reserved import PROBE_PREFIX, is_reserved
from tests.purchase_files import HEADER, csv_file, events


@pytest.mark.parametrize(
    ("user", "is_one"),
    [(f"{PROBE_PREFIX}0123", True), (PROBE_PREFIX, True), ("__recsys_probe", False), (f"x{PROBE_PREFIX}", False)],
)
def test_the_prefix_makes_a_reserved_user(user: str, is_one: bool) -> None:
    assert is_reserved(user) is is_one


def test_rows_of_reserved_users_in_files_are_passed_over(tmp_path: Path) -> None:
    file = csv_file(tmp_path, f"{HEADER}{PROBE_PREFIX}0123,sku-1,2026-01-01\nada,sku-2,2026-01-01\n")
    assert [event.user_id for _, event in events(file)] == ["ada"]
