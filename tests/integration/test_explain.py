"""`recsys explain` against a real Redis and a model on disk."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from recsys.model.boosts import HABIT, Boosts
from recsys.model.factor_model import FactorModel
from recsys.recommend.explain import explain
from recsys.recommend.user_lists import refresh
from recsys.redis import PlacedEvent, Store, open_store
from recsys.runtime.clock import now
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir
from tests.builders import item_ids, make_event, make_model
from tests.preloaded import run_module
from tests.unit.test_models import save

USER, BEST, POT, HIDDEN = "42", "item-0005", "item-0001", "item-0007"
OWNED = [POT, "item-0002", "item-0003", "item-0012", "item-0013", "not in the model"]
TITLES = {BEST: "Green tea", POT: "Tea [pot]"}
Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Installation:
    """A Redis with what users own, and a data_dir without any model yet."""

    store: Store
    settings: Settings
    recsys: Command

    def publish(self) -> FactorModel:
        """Make a model with learned weights live."""
        fitted, rng = make_model(), np.random.default_rng(3)
        biases = rng.normal(0.0, 0.1, (2, len(fitted.items))).astype(np.float32)
        boosts = Boosts(biases[0], biases[1], 0.7, rng.normal(size=len(HABIT)))
        data_dir = open_data_dir(self.settings)
        version, uri, sha256 = save(data_dir.storage, replace(fitted, boosts=boosts))
        pointer = self.store.pointer
        assert pointer.move(version, uri, sha256, seen=pointer.value(), at=now()) is not None
        return data_dir.models.load(version, manifest_sha256=sha256)

    def own(self, user: str, items: list[str]) -> None:
        placed = [PlacedEvent("t:0", offset, make_event(user, item)) for offset, item in enumerate(items)]
        self.store.users.apply({user: placed})


@pytest.fixture
def installation(redis_url: str, tmp_path: Path) -> Installation:
    prefix = f"recsys-{uuid.uuid4().hex[:8]}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")},
        "RECSYS_REDIS__URL": redis_url,
        "RECSYS_REDIS__PREFIX": prefix,
        "RECSYS_DATA_DIR": str(tmp_path / "data"),
        "RECSYS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "RECSYS_KAFKA__TIMEOUT_S": "1",
        "COLUMNS": "160",
    }

    def run(*arguments: str, expect: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = run_module(
            "recsys", ["explain", *arguments], environment=environment | more, folder=tmp_path, timeout_s=120
        )
        assert done.returncode == expect, f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    settings = Settings.model_validate(
        {"redis": {"url": redis_url, "prefix": prefix}, "data_dir": str(tmp_path / "data")}
    )
    with open_store(settings) as store:
        store.catalogue.write(TITLES, [])
        return Installation(store, settings, run)


def amounts(said: str) -> list[float]:
    """Return the parts in the table, and the score below them."""
    return [float(number) for number in re.findall(r"([+-]?\d+\.\d{4})[^\d)]*$", said, flags=re.MULTILINE)]


def test_reasons_come_biggest_first_and_the_parts_sum_to_the_score_of_lists(installation: Installation) -> None:
    model = installation.publish()
    installation.own(USER, OWNED)
    history = installation.store.users.read([USER])[USER].history
    (ranked,) = refresh([history], model, n=40, include_purchased=False)
    said = installation.recsys(USER, BEST).stdout
    score = dict(zip(ranked.item_ids, ranked.scores, strict=True))[BEST]
    assert said.startswith(f"Green tea ({BEST}) scores {score:.4f} for user {USER}: ")
    sentence, table = said.split("The score of")
    told = re.findall(r"\(([+-]\d+\.\d{4})\)", sentence)
    for_it = [float(part) for part in told if part.startswith("+")]
    assert for_it == sorted(for_it, reverse=True)
    found = explain(history, model, BEST, include_purchased=False)
    biggest = max(*(part for _, part in found.contributions), found.demand)
    assert for_it[0] == pytest.approx(biggest, abs=1e-4)
    *parts, total = amounts(table)
    assert len(parts) == 6  # five owned items that the model knows, and demand
    assert parts == sorted(parts, reverse=True)
    assert total == pytest.approx(score, abs=1e-4)
    assert sum(parts) == pytest.approx(total, abs=5e-4)
    assert "Tea [pot]" in table


def test_what_top_leaves_out_is_one_line_of_the_table(installation: Installation) -> None:
    installation.publish()
    installation.own(USER, OWNED)
    whole = amounts(installation.recsys(USER, BEST).stdout.split("The score of")[1])
    fewer = installation.recsys(USER, BEST, "--top", "2", COLUMNS="80").stdout.split("The score of")[1]
    *parts, total = amounts(fewer)
    assert "3 other items" in fewer
    assert len(parts) == 4
    assert total == whole[-1]
    assert sum(parts) == pytest.approx(total, abs=5e-4)


def test_what_cannot_be_explained_is_one_clear_line(installation: Installation) -> None:
    def error(*arguments: str) -> str:
        done = installation.recsys(*arguments, expect=1)
        (line,) = done.stderr.strip().splitlines()
        assert not done.stdout
        return line

    assert "error: no model is live; make one with recsys retrain" in error(USER, BEST)
    model = installation.publish()
    installation.own(USER, OWNED)
    assert "error: user nobody is unknown: no purchase has been applied yet" in error("nobody", BEST)
    unknown = error(USER, "no such")
    assert f"error: item no such is unknown to model {model.version}: nobody had bought it" in unknown
    assert "is not a valid item id" in error(USER, "a\nb")
    assert "is not a valid user id" in error("x" * 257, BEST)
    installation.store.users.set_aside([USER])
    assert f"error: the history of user {USER} is incomplete in Redis" in error(USER, BEST)


def test_owned_and_hidden_items_are_said_to_be(installation: Installation) -> None:
    installation.publish()
    installation.own(USER, OWNED)
    owned = installation.recsys(USER, POT).stdout.splitlines()
    assert owned[0] == (
        f"user {USER} owns {POT} already: it is in no list, for RECSYS_RANKING__INCLUDE_PURCHASED is false"
    )
    assert "the user owns it already (" in " ".join(owned)
    included = installation.recsys(USER, POT, RECSYS_RANKING__INCLUDE_PURCHASED="true").stdout
    assert included.startswith(f"user {USER} owns {POT} already: lists include purchased items\n")
    assert "habit" in included.split("The score of")[1]
    installation.store.catalogue.hide(HIDDEN)
    hidden = installation.recsys(USER, HIDDEN).stdout
    assert hidden.startswith(f"item {HIDDEN} is hidden or not available: it is in no list\n")
    assert "hidden" not in installation.recsys(USER, BEST).stdout


def test_a_user_of_whom_the_model_knows_nothing_has_the_demand_alone(installation: Installation) -> None:
    installation.publish()
    installation.own("new", ["not in the model"])
    said = installation.recsys("new", item_ids(1)[0]).stdout
    assert said.startswith("the model knows nothing that user new owns: the score is the item's demand alone\n")
    demand, total = amounts(said.split("The score of")[1])
    assert demand == total
