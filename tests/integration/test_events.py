"""`recsys events`: what records become, with nothing written and no group joined."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recsys.data.mapping_file import preset, presets
from recsys.errors import InputFileError
from recsys.kafka.decoder import make_decoder
from recsys.kafka.readings import load_mapping
from recsys.kafka.topics import create_topic_if_missing
from recsys.operations import record_sources
from recsys.operations.record_sources import TopicRecords
from recsys.redis import Store, open_store
from recsys.settings import KafkaSettings
from tests.builders import NOON_MS
from tests.preloaded import run_module
from tests.services import ApacheKafka, Shop, kafka_jars, running_kafka, wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]
ORDERS = """
where = "value.status == 'paid'"
lines = "value.lines"
zero_quantity = "skip"
[fields]
user_id = "value.customer"
item_id = "line.sku"
quantity = "line.n"
timestamp = "value.at"
event_id = ["value.id", "number"]
"""


@pytest.fixture
def recsys(tmp_path: Path) -> Command:
    """Run the command in a folder with a mapping, where neither Kafka nor Redis can be had."""
    (tmp_path / "orders.toml").write_text(ORDERS)

    def run(
        *arguments: str, expect: int = 0, width: int = 80, environment: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")},
            "RECSYS_REDIS__URL": "redis://127.0.0.1:1/0",
            "RECSYS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "RECSYS_DATA_DIR": str(tmp_path / "data"),
            "COLUMNS": str(width),
            **environment,
        }
        done = run_module("recsys", list(arguments), environment=variables, folder=tmp_path, timeout_s=120)
        assert done.returncode == expect, f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "data").exists()
        return done

    return run


def order(number: int, *lines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    at = "2026-11-22T10:59:00Z"
    return {"id": number, "status": "paid", "customer": f"c{number}", "at": at, "lines": list(lines), **fields}


def line(sku: Any, n: Any = 2) -> dict[str, Any]:
    return {"sku": sku, "n": n}


def write(path: Path, *records: Any) -> None:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records))


def test_records_of_a_file_stand_beside_their_events(recsys: Command, tmp_path: Path) -> None:
    write(
        tmp_path / "orders.jsonl",
        order(1, line("old")),
        order(2, line("tea"), line("gone", 0), line("gone", 0), line("mug", 12)),
        "",
        order(3, line("tea"), status="open"),
        order(4, line("tea"), line(None)),
        "{broken",
    )
    said = recsys("events", "preview", "orders.jsonl", "--mapping", "orders.toml", "-n", "4").stdout
    blocks = [block.splitlines() for block in said.strip().split("\n\n")]
    assert [block[0] for block in blocks[:-1]] == ["line 2", "line 4", "line 5", "line 6"]
    assert blocks[0][1].startswith('  {"id":2,"status":"paid","customer":"c2"')
    assert [row.rstrip() for row in blocks[0][-3:]] == [
        "  purchase  user c2  item tea   × 2  2026-11-22 10:59:00",
        "  purchase  user c2  item mug  × 12  2026-11-22 10:59:00",
        "  passed over: lines 2, 3: its quantity is 0",
    ]
    assert blocks[1][-1].rstrip() == "  passed over: where leaves it out"
    assert blocks[2][-1].rstrip() == "  malformed: line 2: item_id is required for a purchase"
    assert "  malformed: is not JSON: " in blocks[3][2]
    assert " ".join(" ".join(blocks[4]).split()) == (
        "the newest of orders.jsonl, mapping orders.toml: 4 records, 2 events; 1 hold none that counts, 2 malformed"
    )
    assert max(map(len, said.splitlines())) <= 80
    first = recsys("events", "preview", "orders.jsonl", "--mapping", "orders.toml", "-n", "1", "--oldest").stdout
    assert "item old" in first
    assert "item tea" not in first


def test_prices_and_ids_of_events_are_shown_where_there_is_room(recsys: Command, tmp_path: Path) -> None:
    write(
        tmp_path / "one.jsonl", {"user_id": "u", "item_id": "a", "price": 9.5, "event_id": "o:1", "timestamp": NOON_MS}
    )
    wide, narrow = (recsys("events", "preview", "one.jsonl", width=width).stdout for width in (160, 80))
    event = "purchase  user u  item a  × 1  2026-11-22 12:00:00"
    assert f"  {event}  9.5  o:1" in wide
    assert f"  {event}\n" in narrow


def test_nothing_in_a_record_is_obeyed_by_the_terminal(recsys: Command, tmp_path: Path) -> None:
    hostile = {"user_id": "\u202eu\u200b", "item_id": "[red]茶", "timestamp": NOON_MS, "note": "\x1b[31m\n"}
    write(tmp_path / "bad.jsonl", hostile, "\x1b[2J\x9b no JSON", hostile | {"user_id": "\x1b]8;;x\x07"})
    said = recsys("events", "preview", "bad.jsonl", width=200).stdout
    assert "user \\u202eu\\u200b  item [red]茶" in said
    assert "\\u001b[2J" in said
    checked = recsys("events", "check", "bad.jsonl", expect=1)
    for text in (said, checked.stdout, checked.stderr, recsys("events", "preview", "bad.jsonl", "--json").stdout):
        assert all(character.isprintable() or character == "\n" for character in text)


def test_a_preview_for_programs(recsys: Command, tmp_path: Path) -> None:
    write(tmp_path / "orders.jsonl", order(2, line("tea"), line("gone", 0)), "{")
    said = recsys("events", "preview", "orders.jsonl", "--mapping", "orders.toml", "--json").stdout
    good, bad = json.loads(said)
    assert good["place"] == "line 1"
    assert json.loads(good["value"])["id"] == 2
    assert [(event["item_id"], event["event_id"], event["line"]) for event in good["events"]] == [("tea", "2:1", 1)]
    assert good["passed_over"] == [{"line": 2, "why": "its quantity is 0"}]
    assert good["malformed"] is None
    assert bad["malformed"].startswith("is not JSON: ")


def test_a_check_says_what_a_file_comes_to(recsys: Command, tmp_path: Path) -> None:
    records = [order(number, line("tea"), line("mug")) for number in range(200)]
    write(tmp_path / "good.jsonl", *records, records[0], order(7, status="open"), order(8))
    done = recsys("events", "check", "good.jsonl", "--mapping", "orders.toml")
    rows = [" ".join(row.split()) for row in done.stdout.splitlines()]
    assert rows[:10] == [
        "good.jsonl, mapping orders.toml",
        "records 203",
        "malformed 0",
        "events 402",
        "purchases 402",
        "users 200",
        "items 2",
        "first 2026-11-22T10:59:00Z",
        "last 2026-11-22T10:59:00Z",
        "repeated 2 by event_id; these count once",
    ]
    assert "where leaves it out 1 line 202" in rows
    assert "it has no lines 1 line 203" in rows
    assert "suspicious" not in done.stdout
    assert "check good.jsonl: done, 203" in done.stderr


def test_a_check_ends_with_1_where_something_is_suspicious(recsys: Command, tmp_path: Path) -> None:
    records = [order(number, line("85123.0"), customer=f"{number}") for number in range(20)]
    write(tmp_path / "bad.jsonl", *records, order(1, line(None)), order(2, line(None)))
    done = recsys("events", "check", "bad.jsonl", "--mapping", "orders.toml", expect=1)
    assert "suspicious: 20 item ids like '85123.0': a program took ids for numbers" in " ".join(done.stdout.split())
    assert "suspicious: 9.1% break a rule" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads(recsys("events", "check", "bad.jsonl", "--mapping", "orders.toml", "--json", expect=1).stdout)
    assert found["malformed"] == [
        {"reason": "item_id is required for a purchase", "count": 2, "share": 2 / 22, "first": "line 21"}
    ]
    assert len(found["suspicions"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "rows.csv"], "rows.csv: there is no column 'timestamp' for timestamp"),
        (["preview", "nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
        (["preview", "*.jsonl"], "*.jsonl: no file has such a name"),
        (["preview", "."], ".: "),
        (["preview", "rows.csv", "--topic", "t"], "FILE and --topic cannot be used together"),
        (["preview", "rows.csv", "--mapping", "shopify"], "--mapping: shopify: is neither a file nor"),
        (["preview", "--mapping", "shopify"], "RECSYS_EVENTS__MAPPING: shopify: is neither a file nor"),
        (["check", "--user-id-column", "customer"], "--user-id-column says how files are read; name one"),
        (
            ["check", "rows.csv", "--mapping", "orders.toml", "--no-integer-ids"],
            "--no-integer-ids and --mapping cannot be used together: the mapping says",
        ),
        (["preset", "shopify"], "shopify: there is no such preset; there are contract, debezium"),
    ],
)
def test_wrong_input_is_one_clear_error(recsys: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id\nu,a\n")
    error = recsys("events", *arguments, expect=2 if arguments == ["preview", "--mapping", "shopify"] else 1).stderr
    assert f"error: {said}" in error
    assert len([text for text in error.splitlines() if not text.startswith("INFO")]) == 1


def test_a_file_without_quantities_is_right_and_a_frequent_user_is_named_once(recsys: Command, tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp\n"
    (tmp_path / "honest.csv").write_text(header + "".join(f"u{n},i{n % 9},2026-01-01\n" for n in range(1_000)))
    done = recsys("events", "check", "honest.csv")
    assert "note: all quantities are 1: nothing says what they are" in done.stdout
    guests = "".join(f"{'guest' if n < 100 else f'u{n}'},i{n % 9},2026-01-01\n" for n in range(1_000))
    (tmp_path / "guests.csv").write_text(header + guests)
    found = recsys("events", "check", "guests.csv", expect=1, width=200)
    assert (found.stdout + found.stderr).count("user 'guest' has 10% of the ") == 1
    assert "leave it out with --no-user 'guest'" in found.stdout
    assert "has 10% of the 1,000 rows" in recsys("events", "preview", "guests.csv", width=200).stderr


def test_files_of_any_kind_are_seen_as_an_import_reads_them(recsys: Command, tmp_path: Path) -> None:
    rows = [
        "customer,sku,units,at",
        '17850.0,tea,"1,5",2026-11-22T10:00:00Z',
        ",tea,1,2026-11-22",
        "9.0,tea,x,2026-11-22",
    ]
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    names = ["--user-id-column", "customer", "--item-id-column", "sku", "--quantity-column", "units"]
    columns = [*names, "--timestamp-column", "at", "--decimal", ","]
    said = recsys("events", "preview", "rows.csv.gz", *columns, "--json")
    good, skipped, bad = json.loads(said.stdout)
    assert (good["place"], json.loads(good["value"])["customer"]) == ("line 2", "17850.0")
    assert [(e["user_id"], e["quantity"]) for e in good["events"]] == [("17850", 1.5)]
    assert skipped["passed_over"] == [{"line": None, "why": "it has no customer"}]
    assert bad["malformed"].startswith("quantity: 'x'")
    assert "note: column 'customer': ids are written with a decimal point" in said.stderr
    pd.DataFrame({"customer": ["a", "b"], "sku": ["x", "y"], "at": ["2026-11-22", "2026-11-23"]}).to_parquet(
        tmp_path / "a.parquet"
    )
    shown = recsys("events", "preview", "*.parquet", *names[:4], "--timestamp-column", "at").stdout
    assert "user b  item y  × 1  2026-11-23 00:00:00" in shown
    assert "the newest of *.parquet, without a mapping: 2 records, 2 events" in shown
    found = json.loads(recsys("events", "check", "rows.csv.gz", *columns, "--json", expect=1).stdout)
    assert (found["records"], found["events"]["purchase"], found["malformed"][0]["count"]) == (3, 1, 1)


def test_several_files_of_orders_are_checked_as_one(recsys: Command, tmp_path: Path) -> None:
    orders = [order(number, line("tea"), line("mug")) for number in range(20)]
    write(tmp_path / "a.jsonl", *orders[:10])
    with pa.CompressedOutputStream(str(tmp_path / "b.jsonl.zst"), "zstd") as packed:
        packed.write("".join(f"{json.dumps(one)}\n" for one in orders[10:]).encode())
    found = json.loads(recsys("events", "check", "?.jsonl*", "--mapping", "orders.toml", "--json").stdout)
    assert (found["records"], found["events"]["purchase"], found["users"]) == (20, 40, 20)


def test_the_mapping_of_the_settings_reads_files_unless_options_name_columns(recsys: Command, tmp_path: Path) -> None:
    write(tmp_path / "orders.jsonl", order(2, line("tea")))
    (tmp_path / "rows.csv").write_text("customer,item_id,timestamp\nu,a,2026-11-01\n")
    environment = {"RECSYS_EVENTS__MAPPING": str(tmp_path / "orders.toml")}
    assert "item tea" in recsys("events", "preview", "orders.jsonl", environment=environment).stdout
    by_columns = recsys("events", "preview", "rows.csv", "--user-id-column", "customer", environment=environment).stdout
    assert "rows.csv, without a mapping: 1 record, 1 event" in by_columns
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,2026-11-01\n")
    usual = recsys("events", "preview", "rows.csv", "--user-id-column", "user_id", environment=environment).stdout
    assert "rows.csv, without a mapping: 1 record, 1 event" in usual


def test_rows_that_no_column_fits_lead_to_the_mapping_of_the_settings(recsys: Command, tmp_path: Path) -> None:
    write(tmp_path / "orders.jsonl", order(2, line("tea")))
    said = recsys("import", "orders.jsonl", expect=1).stderr
    assert "Name the right one with --user-id-column" in said
    assert "--mapping" not in said
    environment = {"RECSYS_EVENTS__MAPPING": "orders.toml"}
    said = recsys("import", "orders.jsonl", expect=1, environment=environment).stderr
    assert "--user-id-column, or read the rows as services read records, with --mapping orders.toml" in said


def test_a_check_says_which_prices_cannot_be_read(recsys: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp,price\nu,a,2026-11-01,cheap\nv,a,2026-11-01,1.5\n")
    assert (
        "note: 1 price left out that cannot be read; no model uses prices"
        in recsys("events", "check", "rows.csv").stdout
    )
    assert json.loads(recsys("events", "check", "rows.csv", "--json").stdout)["unread_prices"] == 1


@pytest.mark.parametrize("path", ["nowhere/bad.csv", ".", "link.csv"])
def test_a_file_for_rejects_that_cannot_be_written_is_refused_first(recsys: Command, tmp_path: Path, path: str) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,2026-11-01\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "another.csv")
    for command in ("import", "publish"):
        said = recsys(command, "rows.csv", "--rejects", path, expect=1).stderr
        assert f"error: --rejects: {path} cannot be written: " in said
        assert len(said.splitlines()) == 1
    assert sorted(found.name for found in tmp_path.iterdir()) == ["link.csv", "orders.toml", "rows.csv"]


def test_presets_are_listed_and_printed_to_be_edited(recsys: Command, tmp_path: Path) -> None:
    assert recsys("events", "preset").stdout.splitlines() == presets(), "plain names, where no terminal reads them"
    for name in presets():
        own = tmp_path / f"own-{name}.toml"
        own.write_text(recsys("events", "preset", name).stdout)
        assert own.read_text() == preset(name)
        assert load_mapping(str(own)).described == load_mapping(name).described


def published(shop: Shop, *records: Any, first_ms: int = NOON_MS) -> None:
    """Publish records a second apart, to all partitions in turn, each in a transaction of its own.

    So each partition holds as many offsets without a record.
    """
    producer = Producer({"bootstrap.servers": shop.kafka.address, "transactional.id": shop.name})
    producer.init_transactions()
    for number, value in enumerate(records):
        producer.begin_transaction()
        raw = value if value is None else json.dumps(value).encode()
        producer.produce(shop.topic, raw, key=f"k{number}", partition=number % 4, timestamp=first_ms + 1000 * number)
        producer.commit_transaction()


def skus(said: str) -> list[str]:
    return [event["item_id"] for one in json.loads(said) for event in one["events"]]


@pytest.mark.real_kafka
def test_a_topic_is_looked_at_and_nothing_is_left_behind(shop: Shop) -> None:
    (shop.folder / "orders.toml").write_text(ORDERS + 'price = "line.each"\n')
    published(shop, *[order(number, {**line(f"sku-{number}"), "each": "?"}) for number in range(30)], None)
    shop.environment["RECSYS_EVENTS__MAPPING"] = "orders.toml"
    newest = skus(shop.recsys("events", "preview", "--json", "-n", "6").stdout)
    assert newest == [f"sku-{number}" for number in range(25, 30)], "the tombstone is the newest of all"
    keys = [one["key"] for one in json.loads(shop.recsys("events", "preview", "--json", "-n", "2").stdout)]
    assert keys == ["k29", "k30"]
    oldest = skus(shop.recsys("events", "preview", "--json", "-n", "3", "--oldest").stdout)
    assert oldest == ["sku-0", "sku-1", "sku-2"]
    shown = shop.recsys("events", "preview", "--topic", shop.topic, "-n", "1").stdout
    assert f"{shop.topic}[2] 14, 2026-11-22T12:00:30Z, key k30\n  (tombstone: no value)" in shown
    found = json.loads(shop.recsys("events", "check", "--json").stdout)
    assert (found["records"], found["events"]["purchase"], found["users"]) == (31, 30, 30)
    assert found["unread_prices"] == 30
    admin = AdminClient({"bootstrap.servers": shop.kafka.address})
    groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    assert not {group for group in groups if group.startswith(shop.environment["RECSYS_KAFKA__GROUP_ID"])}
    with open_store(shop.settings()) as store:
        assert list(store.connection.client.scan_iter(f"{shop.environment['RECSYS_REDIS__PREFIX']}*")) == []
    assert not (shop.folder / "data").exists()


@pytest.mark.real_kafka
def test_copies_in_a_topic_that_come_too_late_are_named(shop: Shop) -> None:
    (shop.folder / "orders.toml").write_text(ORDERS)
    shop.environment["RECSYS_EVENTS__MAPPING"] = "orders.toml"
    shop.environment["RECSYS_HISTORY__MAX_EVENT_IDS"] = "4"
    orders = [order(number, line("tea"), line("mug"), customer="c") for number in (1, 2, 1, 3, 4, 1)]
    producer = Producer({"bootstrap.servers": shop.kafka.address})
    for value in orders:
        producer.produce(shop.topic, json.dumps(value).encode(), partition=0)
    producer.flush()
    write(shop.folder / "orders.jsonl", *orders)
    done = shop.recsys("events", "check", expect=1)
    rows = [" ".join(row.replace("│", " ").split()) for row in done.stdout.splitlines()]
    assert "repeated 2 by event_id; these count once" in rows
    assert "too late 2 repeated by event_id; these count again" in rows
    assert "set RECSYS_HISTORY__MAX_EVENT_IDS to 6 or more" in " ".join(rows)
    of_files = json.loads(shop.recsys("events", "check", "orders.jsonl", "--json").stdout)
    assert (of_files["repeated"], of_files["repeated_too_late"], of_files["suspicions"]) == (4, 0, [])


@pytest.mark.real_kafka
def test_records_of_a_topic_take_bounded_memory(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    published(shop, *[order(number, line("tea"), note="x" * 1_000) for number in range(16)])
    settings = shop.settings()
    monkeypatch.setattr(record_sources, "_MOST_HELD_BYTES", 4_000)
    with TopicRecords(settings.kafka, make_decoder(settings)) as topic:
        assert [one.key for one in topic.newest(2)] == ["k14", "k15"], "others are not held"
        assert [one.key for one in topic.oldest(2)] == ["k0", "k1"]
        for show in (topic.newest, topic.oldest):
            with pytest.raises(InputFileError, match=r"take more than .* of memory; show fewer with -n"):
                show(16)


@pytest.mark.real_kafka
def test_a_topic_without_records_and_one_that_is_not_there(shop: Shop) -> None:
    assert f"{shop.topic} holds no records" in shop.recsys("events", "preview").stdout
    assert "records  " in shop.recsys("events", "check").stdout
    assert "topic nowhere does not exist" in shop.recsys("events", "check", "--topic", "nowhere", expect=1).stderr


class CreatingKafka(ApacheKafka):
    """A broker that creates the topics that clients ask for, as Kafka does unless it is told otherwise."""

    def properties(self, folder: Path, controller_port: int) -> dict[str, object]:
        """Return the broker's configuration."""
        return {**super().properties(folder, controller_port), "auto.create.topics.enable": "true"}


@pytest.mark.real_kafka
def test_looking_at_a_topic_that_is_not_there_never_creates_it(recsys: Command) -> None:
    with running_kafka(CreatingKafka, kafka_jars()) as broker:
        environment = {"RECSYS_KAFKA__BOOTSTRAP_SERVERS": broker.address}
        for command in ("check", "preview", "check"):
            done = recsys("events", command, "--topic", "nosuch", expect=1, environment=environment)
            assert done.stderr.startswith("error: topic nosuch does not exist at ")
            assert (len(done.stderr.splitlines()), done.stdout) == (1, "")
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic("orders", 1)])["orders"].result()
        assert "nosuch" not in admin.list_topics(timeout=60).topics
        kafka = KafkaSettings(bootstrap_servers=broker.address)
        assert create_topic_if_missing(kafka, "nosuch.dlq", partitions=3, for_records_of="orders")
        wait_until(lambda: "nosuch.dlq" in admin.list_topics(timeout=60).topics, "the topic is known")
        assert len(admin.list_topics(timeout=60).topics["nosuch.dlq"].partitions) == 3


@pytest.fixture
def store(shop: Shop) -> Store:
    with open_store(shop.settings()) as opened:
        return opened


def test_an_import_ends_with_the_summary_and_strict_stops_before_anything_counts(shop: Shop, store: Store) -> None:
    rows = [f"{17850 + number}.0,sku-1,2026-11-01" for number in range(3)]
    (shop.folder / "rows.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows, ",sku-1,2026-11-01"]))
    stopped = shop.recsys("import", "rows.csv", "--strict", "--no-integer-ids", expect=1)
    assert "error: rows.csv: 1 suspicion, so nothing was imported" in stopped.stderr
    assert "suspicious: 3 user ids like '17850.0'" in stopped.stdout
    assert "nothing was imported" in shop.recsys("imports", "list").stdout
    assert store.users.read(["17850.0"])["17850.0"].revision == 0
    said = shop.recsys("import", "rows.csv", "--no-integer-ids").stdout
    assert "3 rows imported: 3 new" in said
    rows = [" ".join(row.replace("│", " ").split()) for row in said.splitlines()]
    assert {"rows 4", "users 3", "items 1", "first 2026-11-01T00:00:00Z"} <= set(rows)
    assert "suspicious: 3 user ids like '17850.0'" in said
    assert store.users.read(["17850.0"])["17850.0"].revision == 1
    assert "rows imported: 0 new, 3 known" in shop.recsys("import", "rows.csv", "--no-integer-ids").stdout


def test_orders_are_seen_imported_and_published_alike(shop: Shop, store: Store) -> None:
    (shop.folder / "orders.toml").write_text(ORDERS)
    write(shop.folder / "orders.jsonl", order(1, line("tea"), line("gone", 0)), order(2, line(None), line("mug")))
    columns = ["orders.jsonl", "--mapping", "orders.toml"]
    said = shop.recsys("import", *columns).stdout
    assert "1 line imported: 1 new, 0 known before" in said
    assert "2 rows read = 1 taken + 1 rejected + 0 skipped" in said
    assert "4 lines read = 1 new + 0 known + 2 rejected + 0 skipped (no customer) + 1 skipped (by the mapping)" in said
    assert "1 row rejected: orders.rejects.jsonl says why; mend it, and import it" in said
    assert store.users.read(["c1"])["c1"].revision == 1
    refused = shop.recsys("import", *columns, "--timezone", "Europe/London", expect=1).stderr
    assert "error: --timezone and --mapping cannot be used together: the mapping says" in refused
    text = (shop.folder / "orders.rejects.jsonl").read_text()
    (shop.folder / "mended.jsonl").write_text(text.replace("null", '"pot"'))
    said = shop.recsys("publish", "mended.jsonl", "--mapping", "orders.toml").stdout
    assert f"2 events published to {shop.topic}" in said
    assert "1 row read = 1 taken + 0 rejected + 0 skipped" in said


def test_a_file_without_suspicion_is_imported_strictly(shop: Shop, store: Store) -> None:
    (shop.folder / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,2026-11-01\n")
    assert "1 row imported: 1 new" in shop.recsys("import", "rows.csv", "--strict").stdout
    assert store.users.read(["u"])["u"].revision == 1
