from __future__ import annotations

import pytest
from pydantic import SecretStr

from consumer.malformed_limit import MalformedLimit
from recsys.errors import MalformedEvent, Reason, TooManyMalformed
from recsys.runtime.user_names import name_users_by
from recsys.settings import LogSettings, Settings

BAD = MalformedEvent("user_id: is required", Reason.USER_ID_MISSING, b"{}", "purchases[3] 17")


def limit(most: int) -> MalformedLimit:
    return MalformedLimit(
        Settings.model_validate({"consumer": {"max_malformed": most}, "kafka": {"group_id": "shop-7"}})
    )


def note(limit: MalformedLimit, *, valid: int = 0, malformed: int = 0) -> None:
    for _ in range(valid):
        limit.note(None, partition=3, offset=16)
    for _ in range(malformed):
        limit.note(BAD, partition=3, offset=17)


@pytest.mark.parametrize("valid", [0, 3, 400, 5000])
@pytest.mark.parametrize("most", [0, 1, 500, 999])
def test_one_more_than_allowed_stops(most: int, valid: int) -> None:
    counted = limit(most)
    note(counted, valid=valid, malformed=most)
    with pytest.raises(TooManyMalformed):
        counted.note(BAD, partition=3, offset=17)


def test_a_thousand_never_stops() -> None:
    note(limit(1000), malformed=5000)


def test_only_the_newest_thousand_count() -> None:
    counted = limit(500)
    for _ in range(20):
        note(counted, malformed=500)
        note(counted, valid=500)
    note(counted, malformed=500)
    with pytest.raises(TooManyMalformed):
        counted.note(BAD, partition=3, offset=17)


def test_a_steady_half_goes_on_for_ever() -> None:
    counted = limit(500)
    for _ in range(5000):
        note(counted, valid=1, malformed=1)


def test_the_error_is_one_line_with_the_numbers_the_newest_reason_and_what_to_do() -> None:
    counted = limit(2)
    note(counted, valid=7, malformed=2)
    with pytest.raises(TooManyMalformed) as caught:
        counted.note(BAD, partition=3, offset=17)
    text = str(caught.value)
    assert "\n" not in text
    assert "3 of the newest 10 records are malformed and RECSYS_CONSUMER__MAX_MALFORMED is 2" in text
    assert "the newest is purchases[3] 17: user_id: is required" in text
    assert "Repair the producer" in text
    assert "with RECSYS_CONSUMER__MAX_MALFORMED=1000 all of them go to purchases.dlq" in text
    assert "reset the offsets of group shop-7" in text


def test_the_error_counts_the_reasons_the_commonest_first() -> None:
    counted = limit(9)
    reasons = ["user_id: is required"] * 5 + ["not JSON at byte 7", "not JSON at byte 12", "type: is 'x'", "too long"]
    for offset, reason in enumerate(reasons):
        counted.note(MalformedEvent(reason), partition=0, offset=offset)
    with pytest.raises(TooManyMalformed) as caught:
        counted.note(MalformedEvent("not JSON at byte 900"), partition=0, offset=9)
    assert "reasons: 5 x user_id: is required; 3 x not JSON at byte 900; 1 x type: is 'x'; 1 x others." in str(
        caught.value
    )


def test_the_error_has_both_commands_whole() -> None:
    settings = Settings.model_validate(
        {
            "consumer": {"max_malformed": 1},
            "kafka": {"group_id": "shop-7", "topic": "orders", "bootstrap_servers": "kafka-1:9092,kafka-2:9092"},
        }
    )
    counted = MalformedLimit(settings)
    counted.note(BAD, partition=3, offset=17)
    for partition, offset in ((3, 18), (1, 40), (2, 500)):
        counted.note(None, partition=partition, offset=offset)
    with pytest.raises(TooManyMalformed) as caught:
        counted.note(BAD, partition=1, offset=41)
    reset = "kafka-consumer-groups.sh --bootstrap-server kafka-1:9092,kafka-2:9092 --group shop-7 --topic orders"
    text = str(caught.value)
    assert "RECSYS_CONSUMER__MAX_MALFORMED=1000 python -m consumer (under a supervisor, " in text
    # Behind what was read of each partition with malformed records, never back to what is done.
    assert text.endswith(
        f"{reset}:1 --reset-offsets --to-offset 42 --execute && {reset}:3 --reset-offsets --to-offset 19 --execute"
    )


def test_the_error_quotes_nothing_of_a_record_where_users_are_named_by_hashes() -> None:
    name_users_by(LogSettings(hash_user_ids=True, hash_key=SecretStr("k" * 16)))
    try:
        with pytest.raises(TooManyMalformed) as caught:
            limit(0).note(
                MalformedEvent("timestamp: 'ann@shop.example' is no time", Reason.TIMESTAMP, b"", "o[1] 7"),
                partition=1,
                offset=7,
            )
    finally:
        name_users_by(LogSettings())
    assert "the newest is o[1] 7: timestamp: '…' is no time; reasons: 1 x timestamp: '…' is no time." in str(
        caught.value
    )
