"""What the brokers know of a consumer group, for people who wonder why a consumer has nothing to do."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys.kafka.clients import (
    AdminClient,
    ClientError,
    KafkaException,
    explained,
    kafka_unavailable,
    lacks_right,
    open_admin,
)
from recsys.settings import KafkaSettings

_MOST_NAMED = 5
_RETRY_S = 0.2
_NO_COORDINATOR_YET = (
    ClientError.NOT_COORDINATOR,
    ClientError.COORDINATOR_LOAD_IN_PROGRESS,
    ClientError.COORDINATOR_NOT_AVAILABLE,
)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group; ``held``: topic → partitions."""

    client: str
    host: str
    held: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class GroupLook:
    """A group as `recsys doctor` looks at it; ``rights``: what this user may do with it, None where nobody tells."""

    members: Sequence[Member]
    rights: frozenset[str] | None


def look_at_group(settings: KafkaSettings) -> GroupLook:
    """Ask which members the group has, of either protocol, and what this user may do with it.

    For commands only: librdkafka 2.16 may end the process where the group's coordinator comes back meanwhile. So the
    old request goes first, which waits until there is one.

    Raises
    ------
    KafkaUnavailable
        When no broker answers.
    RightMissing
        When this user may not describe the group.
    """
    admin, name = open_admin(settings), settings.group_id
    try:
        admin.list_groups(name, timeout=settings.timeout_s)
        group = _described(admin, settings)
    except KafkaException as error:
        raise kafka_unavailable(settings, error, right="READ") from error
    rights = group.authorized_operations
    return GroupLook(
        [_member(member) for member in group.members],
        frozenset(right.name for right in rights) if rights else None,
    )


def _described(admin: AdminClient, settings: KafkaSettings) -> Any:
    """Return the group; the coordinator of a cluster's first group takes a moment to find itself."""
    until = time.monotonic() + settings.timeout_s
    while True:
        try:
            asked = admin.describe_consumer_groups(
                [settings.group_id], include_authorized_operations=True, request_timeout=settings.timeout_s
            )
            return asked[settings.group_id].result()
        except KafkaException as error:
            if error.args[0].code() not in _NO_COORDINATOR_YET or time.monotonic() > until:
                raise
        time.sleep(_RETRY_S)


def _member(member: Any) -> Member:
    held: dict[str, list[int]] = {}
    for place in member.assignment.topic_partitions if member.assignment else ():
        held.setdefault(place.topic, []).append(place.partition)
    return Member(member.client_id, member.host.lstrip("/"), held)


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
