"""The operator's command against a real Redis, without Kafka."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from confluent_kafka import Consumer

from recsys import __version__ as recsys_version
from recsys.data.event import Event
from recsys.kafka.embedded import create_by_asking
from recsys.redis import PlacedEvent, Store, open_store
from recsys.settings import Settings
from tests.preloaded import run_module
from tests.services import RedisServer, wait_until

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def prefix() -> str:
    return f"recsys-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def own_store(redis_url: str, prefix: str) -> Store:
    settings = Settings.model_validate({"redis": {"url": redis_url, "prefix": prefix}})
    with open_store(settings) as store:
        return store


@pytest.fixture
def environment(redis_url: str, prefix: str, tmp_path: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")},
        "RECSYS_REDIS__URL": redis_url,
        "RECSYS_REDIS__PREFIX": prefix,
        "RECSYS_DATA_DIR": str(tmp_path / "data"),
        "RECSYS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "RECSYS_KAFKA__TIMEOUT_S": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def recsys(environment: dict[str, str], tmp_path: Path) -> Command:
    """Run the command in an empty folder."""

    def run(*arguments: str, expect: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        done = run_module("recsys", list(arguments), environment=environment | settings, folder=tmp_path, timeout_s=120)
        assert done.returncode == expect, f"exit {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


def quantities(store: Store, user: str) -> dict[str, float]:
    history = store.users.read([user])[user].history
    return {item: entry.units / 1e6 for item, entry in history.entries.items()}


def test_parquet_import_counts_everything_once_however_often_it_is_run(
    recsys: Command, own_store: Store, tmp_path: Path
) -> None:
    frame = pd.DataFrame(
        {
            "user_id": [17850, 17850, 12583, 12583, 12583],
            "item_id": ["85123A", "71053", "85123A", "85123A", "22728"],
            "quantity": [6, 8, 2, 3, 0],
            "timestamp": pd.to_datetime(["2010-12-01 08:26"] * 5),
        }
    )
    frame.to_parquet(tmp_path / "purchases.parquet")
    first = recsys("import", "purchases.parquet").stdout
    assert "4 rows imported: 4 new, 0 known before" in first
    assert "5 rows read = 4 new + 0 known + 1 rejected + 0 skipped (no customer)" in first
    assert "1 row rejected: purchases.rejects.csv says why; mend it, and import it" in first
    assert "quantity" in (tmp_path / "purchases.rejects.csv").read_text()
    assert "4 rows imported: 0 new, 4 known before" in recsys("import", "purchases.parquet").stdout
    assert quantities(own_store, "17850") == {"85123A": 6, "71053": 8}
    assert quantities(own_store, "12583") == {"85123A": 5}


def test_files_globs_and_packed_files_are_one_import(recsys: Command, own_store: Store, tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp\n"
    for name in ("orders-1.csv", "orders-2.csv"):
        (tmp_path / name).write_text(f"{header}u,{name},2026-01-01\nu,a,2026-01-01\n")
    (tmp_path / "more.gz").write_bytes(gzip.compress(f"{header}u,a,2026-01-01\nu,b,soon\n".encode()))
    said = recsys("import", "orders-*.csv", "more.gz").stdout
    assert "6 rows read = 5 new + 0 known + 1 rejected + 0 skipped (no customer)" in said
    assert "1 row rejected: orders-1.rejects.csv says why" in said
    assert "more.gz line 3: timestamp: 'soon'" in (tmp_path / "orders-1.rejects.csv").read_text()
    assert quantities(own_store, "u") == {"orders-1.csv": 1, "orders-2.csv": 1, "a": 3}
    assert "orders-*.csv and 1 more" in recsys("imports", "list").stdout
    assert "5 rows imported: 0 new, 5 known" in recsys("import", "orders-1.csv", "orders-2.csv", "more.gz").stdout
    assert recsys("import", "orders-*.tsv", expect=1).stderr.strip().endswith("orders-*.tsv: no file has such a name")


def test_standard_input_is_imported(environment: dict[str, str], own_store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"user_id": "u", "item_id": "a", "timestamp": "2026-01-01"}\n')
    for expected in ("1 new, 0 known", "0 new, 1 known"):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"gzip -c rows.jsonl | {sys.executable} -m recsys import -"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert expected in done.stdout, done.stderr
        assert "read standard input: done" in done.stderr
    assert quantities(own_store, "u") == {"a": 1}


def test_several_files_are_published_in_the_order_of_their_times(
    recsys: Command, broker: str, prefix: str, tmp_path: Path
) -> None:
    for name, day in (("a", 3), ("b", 1), ("c", 2)):
        (tmp_path / f"{name}.csv").write_text(f"user_id,item_id,timestamp\nu,{name},2026-01-0{day}\n")
    create_by_asking(broker, prefix)
    kafka = {"RECSYS_KAFKA__BOOTSTRAP_SERVERS": broker, "RECSYS_KAFKA__TOPIC": prefix, "RECSYS_KAFKA__TIMEOUT_S": "30"}
    assert "3 events published" in recsys("publish", "*.csv", **kafka).stdout
    consumer = Consumer({"bootstrap.servers": broker, "group.id": prefix, "auto.offset.reset": "earliest"})
    consumer.subscribe([prefix])
    values: list[bytes] = []

    def has_all() -> bool:
        if (message := consumer.poll(0.1)) is not None and not message.error():
            values.append(message.value() or b"")
        return len(values) == 3

    try:
        wait_until(has_all, "all events are read")
    finally:
        consumer.close()
    assert [json.loads(value)["item_id"] for value in values] == ["b", "c", "a"]


def test_interrupted_import_is_completed_by_running_it_again(recsys: Command, own_store: Store, tmp_path: Path) -> None:
    rows = "".join(f"u{n % 50},item-{n % 7},2026-01-01\n" for n in range(1000))
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\n" + rows)
    assert "127.0.0.1:1" in recsys("import", "rows.csv", expect=1, RECSYS_REDIS__URL="redis://127.0.0.1:1/0").stderr
    assert "1,000 rows imported: 1,000 new" in recsys("import", "rows.csv").stdout
    assert sum(quantities(own_store, "u7").values()) == 20


ADVICE = "part of the file may be imported: run the same command again to complete it, nothing is counted twice"


def test_an_import_whose_redis_goes_away_says_what_to_do(recsys: Command, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,2026-01-01\nu,a,2026-01-01\n")
    server, held = RedisServer(tmp_path), tmp_path / "held"
    server.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(
                recsys, "import", "rows.csv", expect=1, RECSYS_REDIS__URL=server.url,
                RECSYS_TEST_FAIL_POINTS=f"in-import=hold:{held}",
            )  # fmt: skip
            wait_until(lambda: held.exists() or running.done(), "the import is midway")
            server.kill()
            held.unlink()
            error = running.result().stderr
        assert f"127.0.0.1:{server.port}" in error
        assert error.strip().endswith(ADVICE)
        server.start()
        assert "0 new, 2 known" in recsys("import", "rows.csv", RECSYS_REDIS__URL=server.url).stdout
        settings = Settings.model_validate({"redis": {"url": server.url, "prefix": prefix}})
        with open_store(settings) as store:
            assert quantities(store, "u") == {"a": 2}
    finally:
        server.kill()


def test_an_import_whose_disk_is_full_says_what_to_do(recsys: Command, own_store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,2026-01-01\n")
    error = recsys("import", "rows.csv", expect=1, RECSYS_TEST_FAIL_POINTS="in-segment=full").stderr
    assert f"is full (No space left on device); make room on it; {ADVICE}" in error
    assert "1 new" in recsys("import", "rows.csv").stdout
    assert quantities(own_store, "u") == {"a": 1}


def test_csv_with_other_columns_and_returns(recsys: Command, own_store: Store, tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(
        "customer,StockCode,Units,When\n00042,A,5,01/12/2010 08:26\n00042,A,-2,02/12/2010 10:00\n00042,B,1,yesterday\n"
    )
    output = recsys(
        "import", "sales.csv", "--user-id-column", "customer", "--item-id-column", "StockCode", "--quantity-column",
        "Units", "--timestamp-column", "When", "--timestamp-format", "%d/%m/%Y %H:%M", "--negative-returns",
        "--rejects", "bad.csv",
    ).stdout  # fmt: skip
    assert "2 rows imported" in output
    assert quantities(own_store, "00042") == {"A": 3}
    assert "'yesterday' is not in the form %d/%m/%Y %H:%M" in (tmp_path / "bad.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "missing.csv"], "missing.csv: there is no such file"),
        (["import", "wrong.csv"], "Name the right one with --user-id-column"),
        (["import", "note.txt"], "there is no column 'user_id' for user_id"),
        (["import", "broken.parquet"], "broken.parquet: cannot be read"),
        (["publish", "good.csv"], "127.0.0.1:1"),
        (["publish", "good.csv", "--rate", "5", "--speedup", "2"], "cannot be used together"),
        (["verify"], "Redis names no live model"),
        (["retrain"], "no trainer is running"),
    ],
)
def test_wrong_input_is_one_clear_error(recsys: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "broken.parquet").write_text("PAR1 not really")
    (tmp_path / "good.csv").write_text("user_id,item_id,timestamp\n1,2,2026-01-01\n")
    error = recsys(*arguments, expect=1).stderr
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_show_of_an_unknown_user_says_so(recsys: Command) -> None:
    output = recsys("show", "no[bo]dy").stdout
    assert "user no[bo]dy is unknown" in output
    assert "no model has been published yet" in output


@pytest.mark.parametrize("user", ["shop:cat:7", "[/bold]", "{42}", "}", "*", "a\\nb", "😀" * 256, "--x", "e\u0301 |"])
def test_show_prints_ids_as_they_are(recsys: Command, own_store: Store, user: str) -> None:
    purchase = Event(user_id=user, item_id=user, timestamp=0)
    own_store.users.apply({user: [PlacedEvent("t:0", 1, purchase)]})
    output = recsys("show", "--", user, COLUMNS="2000").stdout
    assert f"History of {user}" in output
    assert output.count(user) == 2


def test_show_names_items_by_their_titles(recsys: Command, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,description\nA,[RED] LAMP\n")
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\n1,A,2026-01-01\n")
    recsys("import", "rows.csv")
    assert "[RED] LAMP" in recsys("show", "1", "--items", "items.csv").stdout


def test_config_shows_values_and_sources_and_masks_secrets(recsys: Command, tmp_path: Path) -> None:
    (tmp_path / "recsys.toml").write_text('[ranking]\nn = 20\n[redis]\nurl = "redis://:hunter2@localhost/0"\n')
    output = recsys(
        "config",
        RECSYS_CONFIG=str(tmp_path / "recsys.toml"),
        RECSYS_KAFKA__LIBRDKAFKA='{"sasl.password": "hunter2", "security.protocol": "SASL_SSL"}',
    ).stdout
    rows = {line.split()[0]: line.split() for line in output.replace("│", " ").splitlines() if "RECSYS_" in line}
    assert rows["RECSYS_RANKING__N"][1:3] == ["20", "file"]
    assert rows["RECSYS_KAFKA__TOPIC"][1:3] == ["purchases", "default"]
    assert rows["RECSYS_REDIS__PREFIX"][2] == "environment"
    assert "SASL_SSL" in output
    assert "hunter2" not in output


def test_import_writes_a_lost_part_of_the_archive_again(recsys: Command, own_store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{n % 9},item-{n % 50},2026-01-01\n" for n in range(100))
    )
    recsys("import", "rows.csv")
    (segment,) = (tmp_path / "data" / "archive").rglob("*.parquet")
    rows = pd.read_parquet(segment)
    segment.unlink()
    assert "100 rows imported: 100 new, 0 known before" in recsys("import", "rows.csv").stdout
    (again,) = (tmp_path / "data" / "archive").rglob("*.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(again), rows)
    assert sum(quantities(own_store, "u0").values()) == 12


def test_input_is_never_overwritten_by_its_rejects(recsys: Command, tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp\n1,2,never\n"
    (tmp_path / "rows.csv").write_text(text)
    assert "is the input file" in recsys("import", "rows.csv", "--rejects", "rows.csv", expect=1).stderr
    assert (tmp_path / "rows.csv").read_text() == text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"RECSYS_KAFKA__LIBRDKAFKA": '{"nonsense": 1}'}, "RECSYS_KAFKA__LIBRDKAFKA: No such configuration property"),
        ({"RECSYS_REDIS__URL": "redis://localhost/0?foo=bar"}, "RECSYS_REDIS__URL"),
        ({"RECSYS_REDIS__URL": "redis://localhost/abc"}, "must be a number"),
        ({"RECSYS_REDIS__URL": "http://localhost"}, "must start with redis://"),
        ({"RECSYS_KAFKA__TOPIC": "bad topic!"}, "RECSYS_KAFKA__TOPIC"),
        ({"RECSYS_KAFKA__GROUP_ID": ""}, "RECSYS_KAFKA__GROUP_ID"),
    ],
)
def test_setting_that_a_library_refuses_is_named(
    recsys: Command, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    (tmp_path / "good.csv").write_text("user_id,item_id,timestamp\n1,2,2026-01-01\n")
    command = ("publish", "good.csv") if "KAFKA" in next(iter(settings)) else ("show", "1")
    error = recsys(*command, expect=2, **settings).stderr
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_delimiter_can_be_chosen_and_is_hinted_at(recsys: Command, own_store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id;item_id;timestamp\n1;A;2026-01-01\n")
    assert "--delimiter" in recsys("import", "rows.csv", expect=1).stderr
    recsys("import", "rows.csv", "--delimiter", ";")
    assert quantities(own_store, "1") == {"A": 1}


def test_wrong_time_format_is_one_error_not_a_rejected_file(recsys: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\n1,A,2026-01-01\n")
    assert "--timestamp-format" in recsys("import", "rows.csv", "--timestamp-format", "%Q", expect=1).stderr


def test_items_are_imported_for_lists_and_for_people(recsys: Command, own_store: Store, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,category,available\ntea,Green tea,Drinks,yes\nmug,Mug,,no\n")
    done = recsys("items", "import", "items.csv")
    assert "2 items imported; the catalogue has 2, in 1 category, 1 of them not available" in done.stdout
    assert own_store.catalogue.titles(["tea", "mug", "other"]) == {"tea": "Green tea", "mug": "Mug"}
    assert own_store.catalogue.hidden() == {"mug"}

    (tmp_path / "more.csv").write_text("item_id,title,available\nmug,Big mug,true\nhat,Hat,perhaps\n")
    done = recsys("items", "import", "more.csv")
    assert "2 rows read = 1 valid + 1 rejected; more.rejects.csv says why" in done.stdout
    rejects = (tmp_path / "more.rejects.csv").read_text()
    assert "line 3: available: must be true, false or a number in stock, not 'perhaps'" in rejects
    assert own_store.catalogue.titles(["mug", "hat"]) == {"mug": "Big mug"}
    assert own_store.catalogue.hidden() == frozenset()

    place = PlacedEvent("t:0", 0, Event(user_id="u", item_id="tea", timestamp=1_795_348_800_000))
    own_store.users.apply({"u": [place]})
    assert "Green tea" in recsys("show", "u").stdout
    assert "there is no such file" in recsys("items", "import", "none.csv", expect=1).stderr


def without_progress(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith("INFO: ")]


def test_a_file_of_which_nothing_is_taken_ends_with_1_and_one_line(recsys: Command, tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp\n"
    for name, text, said in (
        ("header.csv", header, "header.csv: there is a header and no row"),
        (
            "wrong.csv",
            f"{header}u,a,soon\n",
            "wrong.csv: no row is a valid purchase: 1 row read = 1 rejected + 0 skipped",
        ),
        ("guests.csv", f"{header}NULL,a,2026-01-01\n", "1 row read = 0 rejected + 1 skipped (no customer)"),
        ("seconds.csv", f"{header}u,a,20261001\n", "--timestamp-unit"),
    ):
        (tmp_path / name).write_text(text)
        for command in (["import", name], ["publish", name]):
            done = recsys(*command, expect=1)
            assert said in done.stderr
            assert len(without_progress(done.stderr)) == 1
    (tmp_path / "items.csv").write_text("item_id,title\n,Tea\n")
    assert (
        "no row is a valid item: 1 row read = 0 valid + 1 rejected"
        in recsys("items", "import", "items.csv", expect=1).stderr
    )


def test_rejects_on_a_full_disk_are_one_error(recsys: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,soon\nu,b,2026-01-01\n")
    error = recsys("import", "rows.csv", "--rejects", "/dev/full", expect=1).stderr
    assert "cannot write rejected rows: No space left on device" in error
    assert len(without_progress(error)) == 1


def test_imports_are_listed(recsys: Command, tmp_path: Path) -> None:
    assert "nothing was imported" in recsys("imports", "list").stdout
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,2026-01-01\nNULL,b,2026-01-01\n")
    said = recsys("import", "rows.csv").stdout
    row = next(line for line in recsys("imports", "list").stdout.splitlines() if "rows.csv" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert f"(import {cells[0]})" in said
    assert cells[2:] == ["rows.csv", "2", "1", "0", "0", "1"]
    assert "there is no such import" in recsys("imports", "undo", "0123456789abcdef", expect=1).stderr


@pytest.mark.parametrize("command", [("import", "rows.csv"), ("items", "import", "items.csv"), ("imports", "list")])
def test_a_data_dir_that_is_none_is_named(recsys: Command, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,a,2026-01-01\n")
    (tmp_path / "items.csv").write_text("item_id,title\na,Tea\n")
    for data_dir in (str(tmp_path / "rows.csv"), "/proc/nothing"):
        if command == ("imports", "list") and data_dir == "/proc/nothing":
            continue  # a folder that is not there yet holds no imports
        error = recsys(*command, expect=1, RECSYS_DATA_DIR=data_dir).stderr
        assert "set RECSYS_DATA_DIR" in error
        assert len(error.strip().splitlines()) == 1


def test_what_the_command_says_of_one_row_is_good_grammar(recsys: Command, tmp_path: Path) -> None:
    (tmp_path / "first.csv").write_text(
        "user_id,item_id,timestamp,event_id,price\nu,a,2026-01-01,e,x\nu,b,2026-01-01,e,\n"
    )
    said = recsys("import", "first.csv").stdout
    assert "note: 1 row repeats the event id of an earlier row, which alone counts" in said
    assert "1 price left out that cannot be read" in said
    assert "dates only" not in said, "nothing was imported before"
    (tmp_path / "more.csv").write_text("user_id,item_id,timestamp\nv,a,2026-01-01\n")
    recsys("import", "more.csv")
    (tmp_path / "more.csv").write_text("user_id,item_id,timestamp\nv,a,2026-01-01\nv,b,2026-01-01\n")
    said = recsys("import", "more.csv").stdout
    assert "dates only, so 1 purchase cannot be told from what was imported before" in said


def test_the_command_names_its_version_and_what_is_tuned(recsys: Command, tmp_path: Path) -> None:
    assert recsys("--version").stdout == f"recsys {recsys_version}\n"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tuned.json").write_text(
        '{"parameters": {"alpha": 3.5}, "objective": 0.2, "ndcg_new": 0.1, "ndcg_all": 0.4, "before": 0.1, '
        '"validated_until": "2026-01-01T00:00:00+00:00", "events": 9, "trials": 2, "at": "2026-01-01T00:00:00+00:00"}'
    )

    def alpha(**settings: str) -> list[str]:
        rows = recsys("config", **settings).stdout.replace("│", " ").splitlines()
        return next(row.split()[1:3] for row in rows if "RECSYS_MODEL__ALPHA" in row)

    assert alpha() == ["3.5", "tuned"]
    assert alpha(RECSYS_MODEL__ALPHA="2") == ["2.0", "environment"]
    assert "the defaults again" in recsys("tune", "--reset").stdout
    assert alpha() == ["1.0", "default"]
    assert "nothing was tuned" in recsys("tune", "--reset").stdout
