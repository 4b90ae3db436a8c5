"""Judging, refusing, forcing and rolling back models, with the real trainer and command."""

from __future__ import annotations

import json
import signal
from typing import Any

import pandas as pd
import pytest

from recsys.redis import Store, open_store
from recsys.settings import Settings
from tests.builders import NOON_S
from tests.planted import event_json
from tests.prepared import once_a_run
from tests.services import Service, Shop, wait_until
from tests.shops import DAY_S, habitual_shop, write_parquet
from tests.stream import publish

pytestmark = pytest.mark.kafka
BAD: dict[str, Any] = {"RECSYS_MODEL__FACTORS": "1", "RECSYS_MODEL__REGULARIZATION": "5000"}
LATER_S = NOON_S - 5 * DAY_S


@pytest.fixture
def trained(shop: Shop) -> Shop:
    """A shop with months of purchases, and a first model of them."""
    events = habitual_shop(seed=0, n_users=200)
    write_parquet(events.where(events.seconds < LATER_S), shop.folder / "history.parquet")
    write_parquet(events.where(events.seconds >= LATER_S), shop.folder / "later.parquet")
    once_a_run(shop, "habitual", lambda: (shop.recsys("import", "history.parquet"), shop.run("trainer", "--once")))
    return shop


def models(shop: Shop) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shop.recsys("models", "--json").stdout)
    return found


def roles(shop: Shop) -> list[str]:
    return [model["role"] for model in models(shop)["models"]]


def versions(shop: Shop) -> list[str]:
    return [model["version"] for model in models(shop)["models"]]


def ensure_verified(shop: Shop) -> None:
    shop.recsys("verify", "--all")


def test_a_worse_model_is_refused_unless_forced_and_every_step_is_on_record(trained: Shop, settings: Settings) -> None:
    (first,) = versions(trained)
    refused = trained.run("trainer", "--once", expect=3, **BAD)
    assert f"{first} stays live" in refused.stderr
    assert f"worse than the live model {first}" in refused.stderr
    assert roles(trained) == ["rejected", "live"]
    ensure_verified(trained)

    trained.run("trainer", "--once", "--force", **BAD)
    assert roles(trained) == ["live", "rejected", "previous"]
    forced, rejected, _ = versions(trained)
    ensure_verified(trained)

    shown = json.loads(trained.recsys("models", "show", "live", "--json").stdout)
    assert (shown["version"], shown["gate"]["decision"], shown["factors"]) == (forced, "forced", 1)
    own = json.loads(trained.recsys("evaluate", "--model", rejected, "--json").stdout)
    assert own["fitted_until"] == own["cut"]  # it never saw its hold-out
    said = trained.recsys("evaluate", "--model", rejected).stdout
    assert said.startswith("For items new to a customer this model is ")
    assert "novelty: how surprising" in said
    told = trained.recsys("models", "show", rejected).stdout
    assert told.startswith("For items new to a customer this model is worse than model " + first)
    assert "do not compare" not in trained.recsys("models").stdout, "all were judged by the same purchases"
    assert "rejected; it" in told
    assert "NDCG@20, new to the user*" in told
    assert "candidate − live" in told

    decisions = [record["gate"]["decision"] for record in models(trained)["rounds"]]
    assert decisions == ["forced", "rejected", "published"]
    newest = models(trained)["rounds"][0]
    assert newest["live_before"] == first
    assert newest["asked_by"] == "operator"
    assert newest["counts"]["events"] > 1000
    assert {"fit", "judge", "read the archive"} <= newest["durations_s"].keys()

    trained.run("trainer", "--once")  # a sound model takes the place of a forced one
    assert roles(trained)[0] == "live"
    ensure_verified(trained)


@pytest.mark.slow
def test_a_rollback_is_at_once_whole_and_holds(trained: Shop, settings: Settings) -> None:
    (first,) = versions(trained)
    trained.recsys("import", "later.parquet")
    trained.run("trainer", "--once")
    second, _ = versions(trained)
    listed = trained.recsys("models").stdout
    assert listed.startswith(f"Model {second} is live.\nFor items new to a customer this model is ")
    assert "Judged by different purchases: do not compare numbers with different letters." in listed
    with open_store(settings) as store:
        before = sequence_of(store)
        done = trained.recsys("models", "rollback")
        assert f"model {first} is live; {second} was live before" in done.stdout
        assert sequence_of(store) > before
        lists = [listed for listed in store.users.lists([f"user-{user}" for user in range(200)]) if listed]
        assert len(lists) == 200
        assert {listed["model"] for listed in lists} == {first}
    ensure_verified(trained)
    assert roles(trained) == ["previous", "live"]
    assert models(trained)["rounds"][0]["kind"] == "rollback"

    # Too little new to judge by: the choice stands.
    kept = trained.run("trainer", "--once", expect=3, RECSYS_TRAINER__HOLDOUT_DAYS="0")
    assert f"{first} stays live" in kept.stderr
    assert "an operator has chosen the live model" in kept.stderr
    assert roles(trained) == ["previous", "live"]

    trained.run("trainer", "--once")  # it passes the gate against the chosen one
    third = versions(trained)[0]
    assert roles(trained)[0] == "live"
    trained.recsys("models", "rollback", second)
    assert {model["version"]: model["role"] for model in models(trained)["models"]} == {
        third: "previous", second: "live", first: "",
    }  # fmt: skip
    ensure_verified(trained)


@pytest.mark.slow
def test_there_is_an_answer_where_there_is_nothing_to_go_back_to(shop: Shop, trained: Shop) -> None:
    (first,) = versions(trained)
    assert "no earlier model is kept" in trained.recsys("models", "rollback", expect=1).stderr
    unknown = trained.recsys("models", "rollback", "20200101T000000Z-abcdef", expect=1).stderr
    assert "there is no model 20200101T000000Z-abcdef" in unknown
    assert f"the newest is {first}" in unknown
    factors = trained.folder / "data" / "models" / first / "item_factors.npy"
    factors.write_bytes(factors.read_bytes()[:-1])
    assert "truncated or changed" in trained.recsys("models", "rollback", first, expect=1).stderr
    trained.run("trainer", "--once")  # without a sound live model there is nothing to compare with
    assert roles(trained)[0] == "live"


def test_a_shop_without_models_says_so(shop: Shop) -> None:
    assert "there is no model yet" in shop.recsys("models", expect=1).stderr
    assert "no model is live" in shop.recsys("models", "show", "live", expect=1).stderr
    assert "no earlier model is kept" in shop.recsys("models", "rollback", expect=1).stderr


def test_a_running_trainer_is_asked_by_command_and_by_signal(trained: Shop) -> None:
    trainer = trained.start_trainer(RECSYS_TRAINER__INTERVAL_S="100000", **BAD)
    trainer.await_saying("trainer ready")
    refused = trained.recsys("retrain", "--wait", expect=3)
    assert "rejected: the new model" in refused.stderr
    assert "worse than the live model" in refused.stderr
    assert refused.stdout.startswith("For items new to a customer the new model is worse than the live model by ")
    assert "candidate − live" in refused.stdout
    assert "hold-out: the purchases that lists are judged by" in refused.stdout
    forced = trained.recsys("retrain", "--wait", "--force")
    assert "forced: it" in forced.stdout
    assert rounds(trained) == ["request", "request", "operator"]
    for _ in range(3):  # asked while nothing is done: one round
        trainer.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: len(rounds(trained)) > 3, "the signal is answered by a round")
    assert rounds(trained)[0] == "signal"
    assert trainer.stop() == 0


def rounds(shop: Shop) -> list[str]:
    return [record["asked_by"] for record in models(shop)["rounds"]]


def sequence_of(store: Store) -> int:
    pointer = store.pointer.read()
    assert pointer is not None
    return pointer.sequence


def test_owned_items_compete_in_lists_where_repeats_are_included(trained: Shop, settings: Settings) -> None:
    included = {"RECSYS_RANKING__REPEATS": "include"}
    trained.environment |= included
    trained.run("trainer", "--once")
    shown = json.loads(trained.recsys("models", "show", "live", "--json").stdout)
    assert shown["gate"]["column"] == "all"
    assert shown["weights"]["habit"]["frequency_30d"] != 0
    ensure_verified(trained)
    with open_store(settings) as store:
        owned = store.users.read(["user-7"])["user-7"].history.entries
        listed = store.users.lists(["user-7"])[0]
        assert listed is not None
        assert {entry["item_id"] for entry in listed["items"]} & owned.keys()
        consumer: Service = trained.start_consumer()
        revision = listed["revision"]
        publish(trained, [("user-7", event_json("user-7", item, quantity=2)) for item in ("item-001", "item-230")])
        wait_until(lambda: (store.users.lists(["user-7"])[0] or {})["revision"] > revision, "the list is new")
        ensure_verified(trained)
        consumer.stop()


@pytest.mark.slow
def test_lists_are_written_anew_for_a_changed_setting(trained: Shop) -> None:
    (version,) = versions(trained)
    trained.environment["RECSYS_RANKING__N"] = "7"
    assert "differences" in trained.recsys("verify", "--all", expect=1).stdout
    trained.recsys("models", "rollback", version)
    ensure_verified(trained)
    assert "VERSION is empty" in trained.recsys("models", "rollback", "", expect=1).stderr


@pytest.mark.slow
def test_scheduled_rounds_wait_for_new_events(trained: Shop) -> None:
    trainer = trained.start_trainer(
        RECSYS_TRAINER__INTERVAL_S="1", RECSYS_TRAINER__MIN_NEW_EVENTS="50", RECSYS_TRAINER__METRICS_PORT="0"
    )
    trainer.await_saying("0 new events since model")
    assert len(versions(trained)) == 1
    publish(trained, [(f"user-{user}", event_json(f"user-{user}", "item-002")) for user in range(60)])
    trainer.await_saying("round done")
    assert rounds(trained)[0] == "schedule"
    assert len(versions(trained)) == 2
    assert trainer.stop() == 0


@pytest.mark.slow
def test_a_model_is_judged_by_what_came_before_and_after_its_making(trained: Shop) -> None:
    (version,) = versions(trained)
    by_archive = json.loads(trained.recsys("evaluate", "--live", "--json").stdout)
    assert (by_archive["model"], by_archive["stands_in"]) == (version, True)
    gate = json.loads(trained.recsys("models", "show", version, "--json").stdout)["gate"]
    ours = next(
        score for score in by_archive["scores"]
        if [score[name] for name in ("recommender", "segment", "column", "n")] == ["the model", "all users", "new", 20]
    )  # fmt: skip
    judged = next(score for score in gate["scores"] if (score["recommender"], score["column"]) == ("candidate", "new"))
    assert ours["ndcg"]["mean"] == pytest.approx(judged["ndcg"]["mean"], rel=1e-6)

    by_file = json.loads(trained.recsys("evaluate", "--model", version, "--data", "later.parquet", "--json").stdout)
    assert not by_file["stands_in"]
    assert by_file["cut"] > by_file["fitted_until"]
    later = pd.read_parquet(trained.folder / "later.parquet")
    halves = {"first.csv.gz": later[::2], "second.csv": later[1::2]}
    for name, half in halves.items():
        half.to_csv(trained.folder / name, index=False)
    named = [argument for name in halves for argument in ("--data", name)]
    by_files = json.loads(trained.recsys("evaluate", "--model", version, *named, "--json").stdout)
    assert by_files == by_file
    told = trained.recsys("evaluate", "--data", "later.parquet", "--html", "report.html").stdout
    assert "all users:" in told
    assert "own frequency" in told
    assert "<svg" in (trained.folder / "report.html").read_text()
    too_early = trained.recsys("evaluate", "--since", "2026-08-01", expect=1).stderr
    assert "cannot be evaluated on purchases since 2026-08-01" in too_early


@pytest.mark.slow
def test_popular_lists_are_recent_and_by_category_once_items_are_imported(trained: Shop, settings: Settings) -> None:
    rows = [f"item-{item:03d},Item {item},{'even' if item % 2 == 0 else 'odd'},{item != 4}" for item in range(240)]
    (trained.folder / "items.csv").write_text("\n".join(["item_id,title,category,available", *rows]))
    trained.recsys("items", "import", "items.csv")
    trained.run("trainer", "--once", "--force")
    with open_store(settings) as store:
        overall, even, odd = (store.item_lists.popular(category) for category in (None, "even", "odd"))
        listed = store.users.lists(["user-7"])[0]
        assert store.item_lists.popular("none") is None
    assert overall is not None
    assert even is not None
    assert odd is not None
    assert even["category"] == "even"
    assert {int(entry["item_id"][-3:]) % 2 for entry in even["items"]} == {0}
    assert {int(entry["item_id"][-3:]) % 2 for entry in odd["items"]} == {1}
    for found in (overall, even, listed):
        assert found is not None
        assert "item-004" not in {entry["item_id"] for entry in found["items"]}
    scores = [entry["score"] for entry in overall["items"]]
    assert scores == sorted(scores, reverse=True)
    assert any(score != int(score) for score in scores)  # purchases that have faded
    ensure_verified(trained)
    assert "Item " in trained.recsys("show", "user-7").stdout


@pytest.mark.slow
def test_the_next_retrain_uses_what_was_tuned(trained: Shop) -> None:
    (first,) = versions(trained)
    told = trained.recsys("tune", "--trials", "3").stdout
    assert "Best of 3 trials, on purchases before 2026-11-" in told
    assert "set by you" in told  # the factors
    kept = json.loads((trained.folder / "data" / "tuned.json").read_text())
    assert "factors" not in kept["parameters"]
    trained.run("trainer", "--once", "--force")
    shown = json.loads(trained.recsys("models", "show", "live", "--json").stdout)
    assert shown["version"] != first
    for name, value in kept["parameters"].items():
        assert shown[name] == pytest.approx(value), name
    ensure_verified(trained)


@pytest.mark.slow
def test_a_scheduled_round_tunes_when_it_is_due(trained: Shop) -> None:
    trainer = trained.start_trainer(
        RECSYS_TRAINER__INTERVAL_S="1", RECSYS_TRAINER__TUNE_EVERY_DAYS="30", RECSYS_TRAINER__TUNE_TRIALS="1"
    )
    trainer.await_saying("tuned in 1 trials")
    assert trainer.stop() == 0


@pytest.mark.slow
def test_lists_that_an_interrupted_round_left_are_written_even_if_no_new_model_is_made(trained: Shop) -> None:
    trained.run(
        "trainer",
        "--once",
        expect=None,
        RECSYS_TEST_FAIL_POINTS="in-full-refresh=kill@3",
        RECSYS_TRAINER__REFRESH_BATCH="20",
    )
    second = versions(trained)[0]
    assert roles(trained)[0] == "live"
    assert trained.recsys("verify", "--all", expect=1).stdout
    trainer = trained.start_trainer(RECSYS_TRAINER__INTERVAL_S="1", RECSYS_TRAINER__MIN_NEW_EVENTS="1000000")
    trainer.await_saying("0 new events since model")
    assert trainer.stop() == 0
    assert versions(trained)[0] == second
    ensure_verified(trained)


@pytest.mark.slow
def test_a_rebuild_brings_the_model_back_that_was_live(trained: Shop, settings: Settings) -> None:
    (first,) = versions(trained)
    trained.recsys("import", "later.parquet")
    trained.run("trainer", "--once")
    trained.recsys("models", "rollback")
    with open_store(settings) as store:
        for key in store.connection.client.scan_iter(f"{store.pointer._keys.prefix}:*"):
            store.connection.client.delete(key)
    done = trained.recsys("rebuild")
    assert f"written with model {first}" in done.stdout
    ensure_verified(trained)
    kept = trained.run("trainer", "--once", expect=3, RECSYS_TRAINER__HOLDOUT_DAYS="0")
    assert "an operator has chosen the live model" in kept.stderr


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, b"{"])
def test_a_lost_or_damaged_pointer_comes_back_with_a_round_that_is_rejected(
    trained: Shop, settings: Settings, left: bytes | None
) -> None:
    (first,) = versions(trained)
    with open_store(settings) as store:
        store.connection.client.delete(store.pointer._keys.model)
        if left is not None:
            store.connection.client.set(store.pointer._keys.model, left)
        trained.run("trainer", "--once", expect=3, **BAD)
        pointer = store.pointer.read()
        assert pointer is not None
        assert pointer.version == first
    ensure_verified(trained)


@pytest.mark.slow
def test_an_empty_data_dir_is_not_taken_for_that_of_the_live_model(trained: Shop) -> None:
    """Such as a volume that is not mounted: a model of what little is in Kafka would take the place of a good one."""
    before = versions(trained)
    elsewhere = str(trained.folder / "elsewhere")
    refused = trained.run("trainer", "--once", expect=1, RECSYS_DATA_DIR=elsewhere)
    assert f"Redis names the live model {before[0]}, but {elsewhere} holds no model" in refused.stderr
    assert "check RECSYS_DATA_DIR and its mount" in refused.stderr
    assert versions(trained) == before
    ensure_verified(trained)
