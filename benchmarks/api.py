"""`make api-check`: is the HTTP API what it says, and fast enough? Fails under a bar, and writes docs/performance.md.

Everything is real: Kafka, Redis, consumer, trainer, and an API with two workers, on this machine. Load comes from wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.results import Measured, keep, machine, print_table, report
from recsys.api_schemas import Source
from recsys.client import Client
from recsys.data.history import Entry
from recsys.operations.verify import Truth, ranking_differences
from recsys.redis import Store, open_store
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir
from tests.api import KEY_SETTING, KEYS, prepare
from tests.conftest import opened_shop
from tests.services import Api, RedisServer, Shop, kafka_server

N_USERS = 1_000
_CONNECTIONS, _THREADS = 16, 1
_EXAMPLES = 50
_PAIRS, _BASKETS, _PURCHASES = 1_000, 200, 50
_BULK = 100
_OUTAGE_S = 3.0
_BARS = {"lists/s": 2_500.0, "users/s": 35_000.0, "p99 ms": 20.0}
_LOAD = """
local bulk, users, think = %d, %d, %f
math.randomseed(7)
wrk.headers["Authorization"] = "Bearer %s"
wrk.headers["Content-Type"] = "application/json"
local function user() return "user-" .. math.random(0, users - 1) end
function request()
  if bulk == 0 then return wrk.format("GET", "/v1/users/" .. user() .. "/recommendations") end
  local ids = {}
  for place = 1, bulk do ids[place] = '"' .. user() .. '"' end
  return wrk.format("POST", "/v1/recommendations", nil, '{"n":10,"user_ids":[' .. table.concat(ids, ",") .. ']}')
end
if think > 0 then
  function delay() return math.floor(think * (0.5 + math.random()) + 0.5) end
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "errors": %%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass
class Stage:
    """A shop with an API of two workers, and a Redis that may be killed."""

    shop: Shop
    settings: Settings
    api: Api
    redis: RedisServer
    store: Store

    @cached_property
    def truth(self) -> Truth:
        """What lists must follow from, computed by a path of its own."""
        return Truth.of_live_model(self.store, open_data_dir(self.settings).models, self.settings.ranking)

    def stale(self) -> float:
        """Return how many stale lists were given out so far."""
        headers = {"Authorization": f"Bearer {KEYS['read']}"}
        text = httpx.get(f"{self.api.url}/metrics", headers=headers, timeout=30).text
        found = re.search(r"^recsys_api_stale_lists_total ([0-9.]+)", text, flags=re.MULTILINE)
        return float(found[1]) if found else 0.0

    def client(self) -> Client:
        """Return a client that may do everything."""
        return Client(self.api.url, key=KEYS["operate"])


@contextmanager
def opened_stage() -> Iterator[Stage]:
    """Start everything."""
    with ExitStack() as stack:
        kafka = stack.enter_context(kafka_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-api-")))
        server = RedisServer(folder, "--appendonly", "yes")
        stack.callback(server.kill)
        server.start()
        shop = stack.enter_context(opened_shop(kafka, server.url, folder))
        shop.forked = False  # what is measured starts as it does for an operator
        prepare(shop, n_users=N_USERS)
        shop.start_trainer()
        shop.start_consumer().await_assigned()
        settings = shop.settings()
        store = stack.enter_context(open_store(settings))
        yield Stage(shop, settings, shop.start_api(RECSYS_API__WORKERS="2", **KEY_SETTING), server, store)


def measure_contract(stage: Stage) -> list[Measured]:
    """Have schemathesis try the OpenAPI document with every check it has; times of the future are left out."""
    hooks = {**os.environ, "SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_hooks.py"))}
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{stage.api.url}/openapi.json", "--checks", "all", "--header",
        f"Authorization: Bearer {KEYS['operate']}", "--max-examples", str(_EXAMPLES), "--continue-on-failure",
        "--no-color", "--seed", "7",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=stage.shop.folder, env=hooks, capture_output=True, text=True, check=False)
    text = done.stdout
    if done.returncode:
        print(text[text.find("= FAILURES") :] if "= FAILURES" in text else text + done.stderr, flush=True)
    cases = re.search(r"(\d+) generated", text)
    return [
        Measured(
            "api",
            "schemathesis, every check",
            f"exit code after {cases[1] if cases else 0} cases",
            done.returncode,
            "",
            at_most=0,
        )
    ]


def measure_answers(stage: Stage) -> list[Measured]:
    """Compare what the API says with what it must say."""
    rng = random.Random(7)
    users = [f"user-{number}" for number in range(N_USERS)]
    with stage.client() as client:
        items = [item.item_id for item in client.popular(240).items]
        worst = max(_parts_are_off(stage, client, rng, rng.choice(users), items) for _ in range(_PAIRS))
        listed = [(user, client.recommendations(user, 10)) for user in users]
        off = 0.0
        for user, own in rng.sample(listed, 200):
            chosen = rng.choice(own.items)
            off = max(off, abs(client.explanation(user, chosen.item_id).score - chosen.score))
        bulk = list(client.recommendations_of(users, 10))
        unequal = sum(one != other for (_, one), other in zip(listed, bulk, strict=True))
        wrong = sum(_basket_differs(stage, client, rng, items, users) for _ in range(_BASKETS))
        freshness = [_seconds_to_list(client, number, rng.choice(items)) for number in range(_PURCHASES)]
    verified = stage.shop.recsys("verify", "--all", expect=None)
    return [
        Measured(
            "api",
            "explanations",
            f"worst |independent score − sum of parts|, {_PAIRS:,} pairs",
            worst,
            "",
            at_most=1e-4,
        ),
        Measured("api", "explanations", "worst |score − score in the list|, 200 pairs", off, "", at_most=1e-4),
        Measured(
            "api", "bulk", f"lists that differ from those asked for alone, of {N_USERS:,}", unequal, "", at_most=0
        ),
        Measured("api", "baskets", f"that differ from the independent path, of {_BASKETS}", wrong, "", at_most=0),
        Measured("api", "personal lists", "exit code of recsys verify --all", verified.returncode, "", at_most=0),
        Measured("api", "purchase posted → list", "median", statistics.median(freshness), "s"),
        Measured("api", "purchase posted → list", f"slowest of {_PURCHASES}", max(freshness), "s", at_most=1),
    ]


def _parts_are_off(stage: Stage, client: Client, rng: random.Random, user: str, items: Sequence[str]) -> float:
    """Return how far an explanation's parts, of an item not owned, are from the score that `recsys verify` computes."""
    rows = stage.truth.model.items.rows
    entries = stage.store.users.read([user])[user].history.entries
    owned = {rows[own]: entry for own, entry in entries.items() if entry.units > 0 and own in rows}
    item = rng.choice([item for item in items if rows[item] not in owned])
    why = client.explanation(user, item)
    parts = sum(part.contribution for part in why.contributions) + why.demand + why.habit
    return abs(parts - float(stage.truth.scores(owned)[rows[item]]))


def _basket_differs(
    stage: Stage, client: Client, rng: random.Random, items: Sequence[str], users: Sequence[str]
) -> bool:
    """Whether a random basket's list is not the one that `recsys verify` would compute, half of them on a history."""
    basket = {item: rng.randint(1, 5) for item in rng.sample(items, rng.randint(1, 6))}
    user = rng.choice(users) if rng.random() < 0.5 else None
    found = client.basket(basket, user_id=user, n=20)
    truth = stage.truth
    entries = {} if user is None else dict(stage.store.users.read([user])[user].history.entries)
    for item, quantity in basket.items():
        bought = Entry.of_event(quantity * 10**6, int(time.time()))
        entries[item] = entries[item] + bought if item in entries else bought
    rows = truth.model.items.rows
    owned = {rows[item]: entry for item, entry in entries.items() if entry.units > 0 and item in rows}
    scores = truth.scores(owned)
    scores[[rows[item] for item in basket]] = -np.inf
    listed = [(item.item_id, item.score) for item in found.items]
    differences = list(ranking_differences(user or "a visitor", listed, scores, truth.model, 20))
    for difference in differences[:3]:
        print(difference, flush=True)
    return bool(differences) or found.source is not Source.PERSONAL


def _seconds_to_list(client: Client, number: int, item: str) -> float:
    user = f"buyer-{number}-{time.time_ns()}"
    started = time.perf_counter()
    client.purchases([{"user_id": user, "item_id": item}])
    while client.recommendations(user, 1).source is not Source.PERSONAL:
        if time.perf_counter() - started > 30:
            raise TimeoutError(f"{user} has no list")
        time.sleep(0.002)
    return time.perf_counter() - started


def measure_load(stage: Stage, *, seconds: int) -> list[Measured]:
    """Have wrk ask for lists, as fast as it goes and then at half of that."""
    found = []
    before = stage.stale()
    for bulk, unit, case in ((0, "lists/s", "one list of 10"), (_BULK, "users/s", f"bulk of {_BULK} lists of 10")):
        _wrk(stage, bulk, seconds=2)
        peak = _wrk(stage, bulk, seconds=seconds)
        rate = peak["requests"] / peak["seconds"]
        # Of each connection: at half of the peak it sends a request so often, if answers take their usual time.
        every_ms = 1e3 * _CONNECTIONS / (rate / 2)
        half = _wrk(stage, bulk, seconds=seconds, think_ms=max(1.0, every_ms - 2.0))
        case = f"{case}, two workers, {_CONNECTIONS} connections"
        share = (half["requests"] / half["seconds"]) / rate
        found += [
            Measured("api", case, "peak", rate * max(1, bulk), unit, at_least=_BARS[unit]),
            Measured("api", case, "median at the peak", peak["p50"], "ms"),
            Measured("api", case, "99th percentile at the peak", peak["p99"], "ms"),
            Measured(
                "api", case, f"99th percentile at {share:.0%} of the peak", half["p99"], "ms", at_most=_BARS["p99 ms"]
            ),
            Measured("api", case, "requests that failed", peak["errors"] + half["errors"], "", at_most=0),
        ]
    with ThreadPoolExecutor(1) as beside:
        large = beside.submit(_wrk, stage, 1_000, seconds=seconds, think_ms=100.0)
        single = _wrk(stage, 0, seconds=seconds, think_ms=10.0)
        errors = single["errors"] + large.result()["errors"]
    case = f"one list beside bulks of 1,000, {_CONNECTIONS} connections each"
    found += [
        Measured("api", case, "99th percentile of one list", single["p99"], "ms"),
        Measured("api", case, "requests that failed", errors, "", at_most=0),
        Measured("api", "all of these loads", "stale lists", stage.stale() - before, "", at_most=0),
    ]
    return found


def _wrk(stage: Stage, bulk: int, *, seconds: int, think_ms: float = 0.0) -> dict[str, Any]:
    script = stage.shop.folder / f"load-{bulk}.lua"
    script.write_text(_LOAD % (bulk, N_USERS, think_ms, KEYS["read"]))
    command = [
        "wrk",
        "-t",
        str(_THREADS),
        "-c",
        str(_CONNECTIONS),
        "-d",
        f"{seconds}s",
        "-s",
        str(script),
        stage.api.url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout[done.stdout.rindex('{"requests"') :]))


@dataclass
class _Seen:
    """What a load got while something was broken: (when, seconds, status, stale)."""

    answers: list[tuple[float, float, int, bool]] = field(default_factory=list)


def measure_outage(stage: Stage) -> list[Measured]:
    """Take Redis away under load, by a kill and by a freeze, and give it back."""
    found = []
    for name, away, back in (
        ("killed", stage.redis.kill, stage.redis.start),
        ("frozen", stage.redis.freeze, stage.redis.thaw),
    ):
        seen = _Seen()
        stopped = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(_load(stage.api.url, seen, stopped)))  # noqa: B023
        thread.start()
        time.sleep(1.0)
        away()
        time.sleep(_OUTAGE_S)
        back_at = _given_back(back)
        time.sleep(3.0)
        stopped.set()
        thread.join()
        fresh = [at for at, _, status, stale in seen.answers if status == 200 and not stale and at > back_at]
        others = sum(status not in (200, 503) for _, _, status, _ in seen.answers)
        stale = sum(stale for *_, stale in seen.answers)
        case = f"Redis {name} for {_OUTAGE_S:g} s under load"
        found += [
            Measured("api", case, "answers that were neither lists nor 503", others, "", at_most=0),
            Measured("api", case, "stale lists", stale, ""),
            Measured("api", case, "slowest answer", 1e3 * max(s for _, s, _, _ in seen.answers), "ms", at_most=200),
            Measured("api", case, "back until fresh lists", min(fresh) - back_at if fresh else 99.0, "s", at_most=2),
        ]
    return found


def _given_back(back: Callable[[], None]) -> float:
    back()
    return time.perf_counter()


async def _load(url: str, seen: _Seen, stopped: threading.Event) -> None:
    """Ask for lists over eight connections, some hundred a second."""
    headers = {"Authorization": f"Bearer {KEYS['read']}"}

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        while not stopped.is_set():
            number += 8
            started = time.perf_counter()
            answer = await client.get(f"/v1/users/user-{number % N_USERS}/recommendations?n=5")
            taken = time.perf_counter() - started
            stale = answer.status_code == 200 and answer.json()["stale"]
            seen.answers.append((started, taken, answer.status_code, stale))
            await asyncio.sleep(0.02)

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        await asyncio.gather(*(ask(client, number) for number in range(8)))


def main() -> int:
    """Check everything; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=(__doc__ or "").replace("`", ""))
    parser.add_argument("--quick", action="store_true", help="shorter loads; write nothing")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("error: wrk is needed for the load (apt-get install wrk)", file=sys.stderr)
        return 2
    os.environ.setdefault("CI", "true")  # a real Kafka, or an error
    print(machine(), flush=True)
    found: list[Measured] = []
    with opened_stage() as stage:
        for part in (
            measure_answers,
            lambda stage: measure_load(stage, seconds=3 if options.quick else 15),
            measure_outage,
            measure_contract,
        ):
            measured = part(stage)
            print_table(measured)
            found += measured
    if not options.quick:
        from benchmarks import document
        from benchmarks.results import load

        keep("api", found)
        document.write(load())
    return report([one for one in found if one.holds is False])


if __name__ == "__main__":
    sys.exit(main())
