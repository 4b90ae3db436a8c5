"""What the brokers know of a consumer group, for people who wonder why a consumer has nothing to do."""

from __future__ import annotations

import struct
from typing import Any

from recsys.kafka.clients import KafkaException, explained, lacks_right, open_admin
from recsys.settings import KafkaSettings

_MOST_NAMED = 5


def describe_group(settings: KafkaSettings) -> str:
    """Say which members the group has, and which partitions of the topic each holds; nothing where no broker answers.

    The old request is used: librdkafka 2.16 may end the process where the newer one, describe_consumer_groups, meets a
    coordinator that comes back. It tells of members with group.protocol=classic only.
    """
    try:
        groups = open_admin(settings).list_groups(settings.group_id, timeout=settings.timeout_s)
    except KafkaException as error:
        refused = lacks_right(error.args[0])
        return f"members that are not known ({explained(settings, error, right='DESCRIBE')})" if refused else ""
    if not groups or not groups[0].members:
        return "no member that joined with group.protocol=classic"
    group = groups[0]
    named = [_holds(member, settings.topic) for member in group.members[:_MOST_NAMED]]
    if len(group.members) > _MOST_NAMED:
        named.append(f"and {len(group.members) - _MOST_NAMED:,} more")
    members = "1 member" if len(group.members) == 1 else f"{len(group.members):,} members"
    return f"{members}, state {group.state}: {', '.join(named)}"


def _holds(member: Any, topic: str) -> str:
    held = ",".join(map(str, assigned(member.assignment).get(topic, [])))
    return f"{member.client_id} at {member.client_host.lstrip('/')} holds {f'[{held}]' if held else 'none'}"


def assigned(assignment: bytes) -> dict[str, list[int]]:
    """Return the partitions by topic that an assignment of the classic protocol names; none if it is another's."""
    found: dict[str, list[int]] = {}
    try:
        (topics,) = struct.unpack_from(">i", assignment, 2)  # behind the version
        at = 6
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", assignment, at)
            name = assignment[at + 2 : at + 2 + length].decode()
            at += 2 + length
            (count,) = struct.unpack_from(">i", assignment, at)
            found[name] = list(struct.unpack_from(f">{count}i", assignment, at + 4))
            at += 4 + 4 * count
    except (struct.error, UnicodeDecodeError):
        return {}
    return found
