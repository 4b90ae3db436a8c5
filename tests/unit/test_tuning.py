from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.data.event_log import EventLog
from recsys.errors import DataDirError, NotEnoughData
from recsys.operations.open_engine import holdout_begins
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.files import Storage
from recsys.storage.tuned import TunedFile
from recsys.training.engine import InMemoryEngine
from recsys.training.parameters import Parameters, Tuned
from recsys.training.tuning import SEARCHED, WINDOW_DAYS, WINDOWS, Problem, _as_suggested, _study, tune
from tests.builders import NOON_S
from tests.shops import DAY_S, habitual_shop

POOR = Parameters(
    factors=16, alpha=0.1, regularization=300.0, half_life_days=0.0, repeat_weight=0.0, iterations=5, seed=0,
    boost_window_days=0.0,
)  # fmt: skip
UNTIL_S = NOON_S - 7 * DAY_S


@pytest.fixture(scope="module")
def shop() -> EventLog:
    return habitual_shop(seed=0, n_users=120)


def problem(shop: EventLog, *fixed: str) -> Problem:
    return Problem.before_holdout(shop, UNTIL_S, POOR, fixed=frozenset({"iterations", *fixed}))


def test_a_search_finds_better_parameters_and_keeps_those_that_are_set(shop: EventLog, tmp_path: Path) -> None:
    found = tune(problem(shop, "factors"), tmp_path, ProgressReporter(), trials=12, jobs=2)
    assert found.trials == 12
    assert found.objective > 1.05 * found.before > 0
    assert found.objective == pytest.approx((found.ndcg_new * found.ndcg_all) ** 0.5, rel=1e-6)
    assert set(found.parameters) == set(SEARCHED) - {"iterations", "factors"}
    assert 0.3 <= found.parameters["regularization"] < 300
    assert found.validated_until == "2026-11-15T12:00:00+00:00"


def test_a_search_goes_on_where_it_was(shop: EventLog, tmp_path: Path) -> None:
    first = tune(problem(shop), tmp_path, ProgressReporter(), trials=2, jobs=1)
    assert first.trials == 2
    same = tune(problem(shop), tmp_path, ProgressReporter(), trials=2, jobs=1)
    assert (same.trials, same.objective, same.before) == (2, first.objective, first.before)
    assert tune(problem(shop), tmp_path, ProgressReporter(), trials=4, jobs=1).trials == 4
    assert len(list(tmp_path.glob("*.journal"))) == 1
    tune(problem(shop, "alpha"), tmp_path, ProgressReporter(), trials=1, jobs=1)  # another problem
    assert len(list(tmp_path.glob("*.journal"))) == 2


def test_a_search_that_was_cut_off_in_its_first_trial_tries_the_parameters_in_use_again(
    shop: EventLog, tmp_path: Path
) -> None:
    one = problem(shop)
    study = _study(tmp_path / f"{one.name()}.journal", one)
    study.enqueue_trial(_as_suggested(one), user_attrs={"current": True})
    study.ask()  # and never told
    found = tune(one, tmp_path, ProgressReporter(), trials=2, jobs=1)
    assert found.before == tune(one, tmp_path / "other", ProgressReporter(), trials=1, jobs=1).objective


def test_a_journal_that_cannot_be_written_is_one_clear_error(shop: EventLog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError, match="the trials cannot be written"):
        tune(problem(shop), tmp_path / "file", ProgressReporter(), trials=1, jobs=1)


def test_one_trial_is_the_parameters_in_use(shop: EventLog, tmp_path: Path) -> None:
    found = tune(problem(shop), tmp_path, ProgressReporter(), trials=1, jobs=1)
    assert found.parameters == {name: getattr(POOR, name) for name in SEARCHED if name != "iterations"}
    assert found.objective == found.before


def test_nothing_from_the_hold_out_on_is_looked_at(shop: EventLog) -> None:
    looked_at = problem(shop)
    assert int(looked_at.events.seconds.max()) < UNTIL_S
    assert looked_at.cuts_s == [UNTIL_S - (window + 1) * WINDOW_DAYS * DAY_S for window in range(WINDOWS)]
    poisoned = replace(shop, item_codes=shop.item_codes * (shop.seconds < UNTIL_S))
    assert problem(poisoned).name() == looked_at.name()
    assert problem(shop, "alpha").name() != looked_at.name()


def test_the_hold_out_is_that_of_the_gate(shop: EventLog) -> None:
    newest_s = int(shop.seconds.max())
    assert holdout_begins(InMemoryEngine(shop), now(), holdout_days=7) == newest_s - 7 * DAY_S


@pytest.mark.parametrize("n_users", [1, 49])
def test_too_little_to_tune_on_is_said(n_users: int) -> None:
    with pytest.raises(NotEnoughData, match="too few purchases to tune on: from 2026-11-01 to 2026-11-15"):
        problem(habitual_shop(seed=0, n_users=n_users))


def tuned(**parameters: float) -> Tuned:
    return Tuned(
        parameters=parameters, objective=0.2, ndcg_new=0.1, ndcg_all=0.4, before=0.1,
        validated_until="2026-11-15T12:00:00+00:00", events=9, trials=3, at="2026-11-22T12:00:00+00:00",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_what_was_tuned_is_used_but_for_what_an_operator_has_set(kind: str, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path) if kind == "local" else f"memory://{uuid.uuid4().hex}")
    settings = Settings.model_validate({"model": {"alpha": 9.0}, "trainer": {"scoring": "als"}})
    file = TunedFile(storage)
    assert file.read() is None
    assert (file.parameters(settings).alpha, file.parameters(settings).factors) == (9.0, 64)
    file.write(tuned(alpha=3.0, factors=48.0, half_life_days=33.0))
    assert file.read() == tuned(alpha=3.0, factors=48.0, half_life_days=33.0)
    parameters = file.parameters(settings)
    assert (parameters.alpha, parameters.factors, parameters.half_life_days) == (9.0, 48, 33.0)
    assert parameters.boost_window_days == 0.0


@pytest.mark.parametrize("content", [b"{", b'{"parameters": {}}', tuned(factors=-1.0).model_dump_json().encode()])
def test_a_damaged_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_file("tuned.json", content)
    with pytest.raises(DataDirError, match=r"tuned\.json is damaged"):
        TunedFile(storage).parameters(Settings())
