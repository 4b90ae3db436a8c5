"""Scenario 15: mixed load with random faults, for a long time; nothing grows, and everything is right at the end."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest

from tests.conftest import PARTITIONS, opened_shop
from tests.faults.conftest import FULL, Report, trained_ledger
from tests.faults.ledger import Ledger
from tests.services import ApacheKafka, Consumer, KafkaServer, RedisServer, Service, wait_until

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(3600)]

_MINUTES = 30 if FULL else 3
_PER_SECOND = 60
_SEED = 15
_ROUND = 14
"""How many faults there are, each once in a round."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the witness, a consumer that no fault is aimed at, and Redis take up."""

    resident_mib: float
    files: int
    redis_mib: float

    @staticmethod
    def most(usages: Iterable[Usage]) -> Usage:
        """Return the largest of each: just after a fault some connections are missing, so one moment says little."""
        residents, files, redis = zip(*(astuple(usage) for usage in usages), strict=True)
        return Usage(max(residents), max(files), max(redis))

    def is_flat_since(self, before: Usage) -> bool:
        """Whether nothing has grown beyond what a quiet hour would show."""
        return (
            self.resident_mib < before.resident_mib * 1.1 + 10
            and self.files <= before.files + 5
            and self.redis_mib < before.redis_mib * 1.1 + 1
        )


class Town:
    """A shop with all its services, and what may happen to them."""

    def __init__(self, ledger: Ledger, kafka: ApacheKafka, redis: RedisServer) -> None:
        self._ledger = ledger
        self._kafka = kafka
        self._redis = redis
        self._random = random.Random(_SEED)
        self.witness = self._consumer()
        self.others = [self._consumer(), self._consumer()]
        self.trainer = self._trainer()
        wait_until(self._all_taken, "all partitions are taken")

    def faults(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield names and faults at random for ever; each mends what it broke, and the broker seldom breaks."""
        usual: dict[str, Callable[[], None]] = {
            "consumer killed": self._kill_consumer,
            "consumer stopped": self._stop_consumer,
            "consumer frozen": self._freeze_consumer,
            "Redis killed": self._kill_redis,
            "connections to Redis cut": lambda: self._redis.client.client_kill_filter(_type="normal", skipme=True),
            "scripts lost": lambda: self._redis.client.script_flush(),
            "trainer killed": self._kill_trainer,
            "malformed records": self._send_malformed,
            "a key of a user lost": self._lose_key,
            "a right taken away": self._take_right,
            "Redis set to evict": self._let_evict,
            "Redis emptied, and rebuilt": self._empty_redis,
            "broker frozen": self._freeze_broker,
        }
        while True:
            names = [*usual]
            self._random.shuffle(names)
            yield from ((name, usual[name]) for name in names)
            yield "broker killed", self._kill_broker

    def usage(self) -> Usage:
        """Measure the witness and Redis."""
        process = Path(f"/proc/{self.witness.process.pid}")
        resident_kib = int((process / "status").read_text().split("VmRSS:")[1].split()[0])
        memory = self._redis.client.info("memory")["used_memory"]
        return Usage(resident_kib / 1024, len(list((process / "fd").iterdir())), memory / 2**20)

    def stop(self) -> None:
        """Stop all services in good order."""
        self._stop_trainer()
        for service in (*self.others, self.witness):
            assert service.stop() == 0, service.said()[-3000:]

    def _stop_trainer(self) -> None:
        """Stop the trainer between two rounds: one stopped within a round leaves lists for its next round to write."""
        status = self._ledger.store.trainer.status
        while True:
            wait_until(lambda: status().get("state") == "succeeded", "a round is completed", patience_s=180)
            assert self.trainer.stop() == 0, self.trainer.said()[-3000:]
            if status().get("state") == "succeeded":
                return
            self.trainer = self._trainer()

    def _consumer(self) -> Consumer:
        return self._ledger.shop.start_consumer(
            RECSYS_KAFKA__LIBRDKAFKA='{"session.timeout.ms": 3000, "heartbeat.interval.ms": 500}',
            RECSYS_CONSUMER__BATCH_SIZE="50",  # full after each fault: then the next batch is read ahead
        )

    def _trainer(self) -> Service:
        return self._ledger.shop.start_trainer(RECSYS_TRAINER__INTERVAL_S="20", RECSYS_TRAINER__LOCK_TTL_S="5")

    def _all_taken(self) -> bool:
        counts = [consumer.metrics().get("partitions", 0) for consumer in (self.witness, *self.others)]
        return bool(sum(counts) == PARTITIONS)

    def _kill_consumer(self) -> None:
        self.others.pop(0).kill()
        self.others.append(self._consumer())

    def _stop_consumer(self) -> None:
        stopped = self.others.pop(0)
        assert stopped.stop() == 0, stopped.said()[-3000:]
        self.others.append(self._consumer())

    def _freeze_consumer(self) -> None:
        frozen, awake = self.others
        frozen.freeze()
        running = (self.witness, awake)
        wait_until(
            lambda: sum(consumer.metrics().get("partitions", 0) for consumer in running) == PARTITIONS,
            "the others have all partitions",
        )
        frozen.thaw()

    def _kill_redis(self) -> None:
        said = len(self.witness.said())
        self._redis.kill()
        wait_until(lambda: "Redis at" in self.witness.said()[said:], "the outage is noticed")
        self._redis.start()

    def _kill_trainer(self) -> None:
        self.trainer.kill()
        self.trainer = self._trainer()

    def _kill_broker(self) -> None:
        self._kafka.kill()
        self._kafka.start()

    def _lose_key(self) -> None:
        user, keys = self._random.choice(self._ledger.users), self._ledger.store.users._keys
        self._redis.client.delete(self._random.choice(keys.of_user(user)[:3]))

    def _take_right(self) -> None:
        said = len(self.witness.said())
        self._redis.client.execute_command("ACL", "SETUSER", "default", "-set")
        wait_until(lambda: "+set" in self.witness.said()[said:], "the missing right is named")
        self._redis.client.execute_command("ACL", "SETUSER", "default", "+@all")

    def _let_evict(self) -> None:
        said = len(self.witness.said())
        self._redis.client.config_set("maxmemory", "1gb")
        self._redis.client.config_set("maxmemory-policy", "allkeys-lru")
        wait_until(lambda: "may evict" in self.witness.said()[said:], "the policy is noticed")
        self._redis.client.config_set("maxmemory-policy", "noeviction")

    def _empty_redis(self) -> None:
        said = len(self.witness.said())
        self._redis.client.flushall()
        wait_until(lambda: "recsys rebuild" in self.witness.said()[said:], "the loss is noticed")
        self._ledger.shop.recsys("rebuild")

    def _freeze_broker(self) -> None:
        said = len(self.witness.said())
        self._kafka.freeze()
        try:
            wait_until(lambda: "no answer for" in self.witness.said()[said:], "the silence is noticed")
        finally:
            self._kafka.thaw()

    def _send_malformed(self) -> None:
        self._ledger.send_malformed([f"not JSON {self._random.random()}".encode() for _ in range(5)])


@contextmanager
def town(kafka: ApacheKafka, redis: RedisServer, folder: Path) -> Iterator[tuple[Ledger, Town]]:
    with ExitStack() as stack:
        server = KafkaServer(kafka.address, True, "a broker of its own")
        shop = stack.enter_context(opened_shop(server, redis.url, folder))
        # What is kept of a user is full soon, so that growth would show.
        shop.environment["RECSYS_HISTORY__MAX_EVENT_IDS"] = "64"
        ledger = stack.enter_context(trained_ledger(shop, seed=_SEED, recurring=True))
        yield ledger, Town(ledger, kafka, redis)


@pytest.mark.slow
@pytest.mark.parametrize(
    "minutes", [pytest.param(0, id="each fault once"), pytest.param(_MINUTES, id=f"{_MINUTES} minutes")]
)
def test_soak(
    breakable_kafka: ApacheKafka, breakable_redis: RedisServer, tmp_path: Path, report: Report, minutes: int
) -> None:
    with town(breakable_kafka, breakable_redis, tmp_path) as (ledger, place):
        began = time.monotonic()
        happened: Counter[str] = Counter()
        recoveries: list[float] = []
        early: list[Usage] = []
        late: deque[Usage] = deque(maxlen=_ROUND)
        with ledger.load(_PER_SECOND):
            for name, fault in place.faults():
                fault()
                happened[name] += 1
                recoveries.append(ledger.await_counted(patience_s=180))
                elapsed_s = time.monotonic() - began
                late.append(place.usage())
                if elapsed_s < minutes * 60 / 3 or len(early) < _ROUND:
                    early.append(late[-1])
                if elapsed_s > minutes * 60 and happened.total() >= _ROUND:
                    break
        ledger.send(ledger.one_of_each())  # whoever has lost a key is met again
        ledger.flush()
        ledger.await_counted()
        ledger.await_made_again()
        place.stop()
        tally = ledger.check()
    before, after = Usage.most(early), Usage.most(late)
    assert after.is_flat_since(before), f"{before} became {after} after {happened}"
    title = f"{minutes} minutes of random faults" if minutes else "Each fault once"
    report(15, title, tally, faults=happened.total(), recovery_s=max(recoveries))
