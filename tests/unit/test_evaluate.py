from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.data.event import EventReading
from recsys.data.event_log import EventLog
from recsys.errors import InputFileError, InvalidModel, NotEnoughData
from recsys.files.columns import Columns
from recsys.files.purchases import PurchaseFile
from recsys.model.factor_model import FactorModel
from recsys.operations.evaluate import (
    MODEL,
    Evaluation,
    cut_of_archive,
    cut_of_file,
    evaluate_model,
    judged_model,
    read_events,
    with_history,
)
from recsys.operations.evaluation_report import html_report
from recsys.runtime.clock import now
from recsys.storage.files import Storage
from recsys.storage.models import ModelStore
from recsys.training.fit import fit_model
from recsys.training.parameters import Parameters
from tests.builders import NOON_S, make_draft
from tests.shops import DAY_S, habitual_shop, write_parquet
from tests.unit.test_models import save

CUT_S = NOON_S - 20 * DAY_S
PARAMETERS = Parameters(
    factors=8, alpha=2.0, regularization=5.0, half_life_days=0, repeat_weight=0, iterations=8, seed=0,
    boost_window_days=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> EventLog:
    return habitual_shop(seed=0, n_users=150)


@pytest.fixture(scope="module")
def model(shop: EventLog) -> FactorModel:
    fitted = fit_model(shop.where(shop.seconds < CUT_S), PARAMETERS, reference_s=CUT_S - 1).model
    return replace(fitted, version="v1")


@pytest.fixture(scope="module")
def found(shop: EventLog, model: FactorModel) -> Evaluation:
    return evaluate_model("v1", model, shop, CUT_S)


def test_a_model_of_a_shop_with_tastes_beats_what_needs_none(found: Evaluation) -> None:
    for column, better in (("new", "popular"), ("all", "own frequency")):
        ours, other = (found.score(name, "all users", column, 20) for name in (MODEL, better))
        assert ours is not None
        assert other is not None
        assert ours.ndcg.low > other.ndcg.high
    assert {score.recommender for score in found.scores} == {
        MODEL, "popular", "recently popular", "own frequency", "item-kNN",
    }  # fmt: skip
    assert {score.n for score in found.scores} == {10, 20}
    assert (found.stands_in, found.cut) == (False, "2026-11-02T12:00:00Z")
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_a_model_that_knows_other_items_is_judged_by_those_of_the_shop(shop: EventLog, model: FactorModel) -> None:
    stranger = replace(shop, item_ids=[f"other-{item}" if item < "item-120" else item for item in shop.item_ids])
    judged = evaluate_model("v1", model, stranger, CUT_S)
    ours = judged.score(MODEL, "all users", "all", 20)
    assert ours is not None
    assert 0 < ours.ndcg.mean < 0.9


def test_what_has_seen_the_purchases_is_not_judged_by_them(shop: EventLog, model: FactorModel, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    aware = replace(model, reference_s=NOON_S)
    version, _, _ = save(storage, aware, holdout_model=make_draft(model))
    judged = judged_model(ModelStore(storage), version, CUT_S)
    found = evaluate_model(version, judged, shop, CUT_S)
    assert (found.model, found.stands_in, found.fitted_until) == (version, True, "2026-11-02T11:59:59Z")
    for holdout_model in (None, make_draft(replace(model, reference_s=CUT_S + 1))):
        version, _, _ = save(storage, aware, holdout_model=holdout_model)
        with pytest.raises(InvalidModel, match="cannot be evaluated on purchases since 2026-11-02T12:00:00Z"):
            judged_model(ModelStore(storage), version, CUT_S)
    version, _, _ = save(storage, replace(model, reference_s=0))
    with pytest.raises(InvalidModel, match=r"by an earlier release.* cannot be evaluated"):
        judged_model(ModelStore(storage), version, CUT_S)


def test_nobody_to_judge_by_is_said(shop: EventLog, model: FactorModel) -> None:
    before = shop.where(shop.seconds < CUT_S)
    with pytest.raises(NotEnoughData, match="nothing to evaluate on"):
        evaluate_model("v1", model, before, CUT_S)


def test_the_cut_is_where_the_models_knowledge_ends_or_the_hold_out_begins(
    shop: EventLog, model: FactorModel, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    version, _, _ = save(storage, model)
    manifest = ModelStore(storage).manifest(version)
    newest_s = int(shop.seconds.max())
    assert cut_of_file(shop, manifest, holdout_days=7) == CUT_S
    known = shop.where(shop.seconds < CUT_S)
    assert cut_of_file(known, manifest, holdout_days=7) == int(known.seconds.max()) - 7 * DAY_S
    assert cut_of_archive(shop, NOON_S, holdout_days=7) == newest_s - 7 * DAY_S
    with pytest.raises(InvalidModel, match="by an earlier release"):
        cut_of_file(shop, manifest.model_copy(update={"reference_s": 0}), holdout_days=7)
    until_s = newest_s - DAY_S
    last_s = int(shop.seconds[shop.seconds <= until_s].max())
    assert cut_of_archive(shop, until_s, holdout_days=7) == last_s - 7 * DAY_S  # events from the future do not count
    with pytest.raises(NotEnoughData):
        cut_of_file(shop.where(shop.seconds < 0), manifest, holdout_days=7)
    with pytest.raises(NotEnoughData):
        cut_of_archive(shop, NOON_S, holdout_days=0)


def test_a_file_of_later_purchases_goes_on_where_the_archive_ends(shop: EventLog, model: FactorModel) -> None:
    earlier, later = shop.where(shop.seconds < CUT_S), shop.where(shop.seconds >= CUT_S)
    joined = with_history(later, lambda: shop, CUT_S)  # the archive may have grown meanwhile
    assert len(joined) == len(shop)
    assert with_history(shop, lambda: earlier, CUT_S) is shop
    one, other = (evaluate_model("v1", model, events, CUT_S) for events in (joined, shop))
    assert one == other


def opened(path: Path) -> PurchaseFile:
    return PurchaseFile(path, Columns(), events=EventReading(), now=now())


def test_a_file_is_read_like_an_import(shop: EventLog, tmp_path: Path) -> None:
    write_parquet(shop, tmp_path / "shop.parquet")
    rows: list[int] = []
    read, counts = read_events(opened(tmp_path / "shop.parquet"), rows.append)
    assert (len(read), counts.read, counts.rejected, sum(rows)) == (len(shop), len(shop), 0, len(shop))
    one, other = read.interactions(), shop.interactions()
    assert list(one.users.ids) == list(other.users.ids)
    np.testing.assert_array_equal(one.owned.entries, other.owned.entries)
    (tmp_path / "odd.csv").write_text(
        "user_id,item_id,timestamp,event_id,quantity\nu,a,2026-01-01,x,1\nu,a,2026-01-01,x,1\nu,,2026-01-01,y,1\n"
    )
    read, counts = read_events(opened(tmp_path / "odd.csv"))
    assert (len(read), counts.read, counts.rejected) == (1, 3, 1)
    (tmp_path / "bad.csv").write_text("user_id,item_id,timestamp\nu,a,soon\n")
    with pytest.raises(InputFileError, match="no row is a valid purchase"):
        read_events(opened(tmp_path / "bad.csv"))


def test_the_report_is_one_page_with_plots_and_every_number(found: Evaluation) -> None:
    page = html_report(found.model_copy(update={"model": "<script>"}))
    assert page.count("<svg") == 2
    assert page.count("<table") == 4
    assert "<script>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    ours = found.score(MODEL, "all users", "new", 20)
    assert ours is not None
    assert f"{ours.ndcg.mean:.4f}" in page


def test_the_report_begins_with_sentences_ends_with_words_and_greys_what_few_users_say(found: Evaluation) -> None:
    page = html_report(found)
    verdict = found.verdict(20)
    assert "better than each customer&#x27;s own habits by" in html.escape(verdict[1])
    places = [page.index(html.escape(text)) for text in verdict]
    assert places == sorted(places)
    assert places[-1] < page.index("<svg") < page.index("<table") < page.index("<dt>NDCG@N</dt>")
    assert 'class="few"' not in page
    scores = [
        replace(one, ndcg=replace(one.ndcg, users=49)) if one.segment == "6–20 items" else one for one in found.scores
    ]
    few = html_report(found.model_copy(update={"scores": scores}))
    assert "6–20 items: 49, too few users to tell" in few
    assert few.count('<tr class="few"><td>the model') == 4  # both kinds of lists, of both lengths
    assert few.count('<tr class="model"><td>the model') == 4
