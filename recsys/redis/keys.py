"""The names of all Redis keys; nothing else knows them."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix. A user's keys share the hash tag ``{user_id}``: one slot of a Redis Cluster.

    Attributes
    ----------
    prefix : str
    of_users : str
        Ends the names of users' keys: what is made anew of a user has keys of its own until it takes its place.
    """

    prefix: str
    of_users: str = ""

    def anew(self) -> Keys:
        """Return the names of what is made anew of users."""
        return replace(self, of_users=":anew")

    def recs(self, user_id: str) -> str:
        """Return the list's key: STRING, JSON; read by apps."""
        return f"{self.prefix}:{{{user_id}}}:recs{self.of_users}"

    def history(self, user_id: str) -> str:
        """Return the history's key: HASH item_id → ``<net quantity>|<last event, epoch seconds>``."""
        return f"{self.prefix}:{{{user_id}}}:history{self.of_users}"

    def applied(self, user_id: str) -> str:
        """Return the bookkeeping's key.

        HASH: revision; listed and sequence (what the current list was computed from); holds (how much is in all keys at
        a revision); aside (how many calls have passed over a user who is set aside); a low-water mark per source.
        """
        return f"{self.prefix}:{{{user_id}}}:applied{self.of_users}"

    def seen(self, user_id: str) -> str:
        """Return the key of remembered events: STRING, msgpack: positions and ids of the newest events."""
        return f"{self.prefix}:{{{user_id}}}:seen{self.of_users}"

    def again(self, user_id: str) -> str:
        """Return the key of the list of what a user may buy again: STRING, JSON; read by apps."""
        return f"{self.prefix}:{{{user_id}}}:again{self.of_users}"

    def of_user(self, user_id: str) -> tuple[str, str, str, str, str]:
        """Return all keys of a user: history, applied, seen, recs, again."""
        return (
            self.history(user_id),
            self.applied(user_id),
            self.seen(user_id),
            self.recs(user_id),
            self.again(user_id),
        )

    def similar(self, item_id: str) -> str:
        """Return the key of an item's similar items: STRING, JSON; read by apps."""
        return f"{self.prefix}:item:{{{item_id}}}:similar"

    def marks(self, shard: str) -> str:
        """Return the key of the applied offsets of the stream on one shard: HASH source → next offset to be applied."""
        return f"{self.prefix}:marks:{{{shard}}}" if shard else f"{self.prefix}:marks"

    def popular_in(self, category: str | None) -> str:
        """Return the key of the popular list, overall or of a category: STRING, JSON; read by apps."""
        return f"{self.prefix}:popular" if category is None else f"{self.prefix}:popular:{category}"

    @property
    def titles(self) -> str:
        """HASH item_id → title, of the imported catalogue."""
        return f"{self.prefix}:titles"

    @property
    def catalogue(self) -> str:
        """STRING: changes with every import of the catalogue."""
        return f"{self.prefix}:catalogue"

    @property
    def unavailable(self) -> str:
        """SET of item ids that the imported catalogue says are not available."""
        return f"{self.prefix}:unavailable"

    @property
    def model(self) -> str:
        """STRING, JSON: the pointer to the live model."""
        return f"{self.prefix}:model"

    @property
    def hidden(self) -> str:
        """SET of item ids never to be recommended; written by operators."""
        return f"{self.prefix}:hidden"

    @property
    def hidden_copy(self) -> str:
        """STRING: the id of the copy of the hidden items in data_dir."""
        return f"{self.prefix}:trainer:hidden"

    @property
    def trainer_lock(self) -> str:
        """STRING: held by the trainer at work."""
        return f"{self.prefix}:trainer:lock"

    @property
    def trainer_alive(self) -> str:
        """STRING with expiry: there while a trainer service runs."""
        return f"{self.prefix}:trainer:alive"

    @property
    def services(self) -> str:
        """SET of the names of services that run, or ran a moment ago, such as ``consumer:0123456789ab``."""
        return f"{self.prefix}:services"

    def service(self, name: str) -> str:
        """Return the key of a service's entry: STRING with expiry, JSON."""
        return f"{self.prefix}:service:{name}"

    def ending(self, kind: str) -> str:
        """Return the key of why a service of a kind has ended by itself: STRING with expiry, JSON."""
        return self.service(f"{kind}:ended")

    @property
    def trainer_requests(self) -> str:
        """HASH: how many retrains were requested and served, how many rounds ended, and how the newest one did."""
        return f"{self.prefix}:trainer:requests"

    @property
    def rebuild(self) -> str:
        """HASH: the stage of a rebuild and the segments that it has applied."""
        return f"{self.prefix}:trainer:rebuild"

    def rebuild_run(self, shard: str) -> str:
        """Return the key of a rebuild's id on one shard: STRING."""
        return f"{self.prefix}:trainer:rebuild:{{{shard}}}" if shard else f"{self.prefix}:trainer:rebuild:run"

    @property
    def trainer_status(self) -> str:
        """STRING, JSON: the round at work or the last one."""
        return f"{self.prefix}:trainer:status"

    def of_all_kinds(self) -> tuple[str, ...]:
        """Return one key of each kind, with ``*`` for the id in it: as patterns of an ACL they name all keys."""
        return (
            *self.of_user("*"), self.similar("*"), self.marks(""), self.marks("*"), self.popular_in(None),
            self.popular_in("*"), self.titles, self.catalogue, self.unavailable, self.model, self.hidden,
            self.trainer_lock, self.trainer_alive, self.trainer_requests, self.rebuild, self.rebuild_run(""),
            self.rebuild_run("*"), self.trainer_status, self.readings, self.services, self.service("*"),
        )  # fmt: skip

    def of_the_api(self) -> tuple[str, ...]:
        """Return the keys to which the HTTP API writes: for operators, and to say that it runs."""
        return (self.hidden, self.trainer_requests, self.services, self.service("*"))

    @property
    def readings(self) -> str:
        """HASH: how records are read, and from which one on; see ``lua/readings.lua``."""
        return f"{self.prefix}:readings"

    @property
    def aside(self) -> str:
        """SET of the users who are set aside, until the trainer has made them again."""
        return f"{self.prefix}:trainer:aside"

    @property
    def history_pattern(self) -> str:
        """SCAN pattern of all histories."""
        return f"{_escape_glob(self.prefix)}:{{*}}:history"

    @property
    def user_pattern(self) -> str:
        """SCAN pattern of all keys of users."""
        return f"{_escape_glob(self.prefix)}:{{*}}:*"

    def user_of(self, key: str) -> str:
        """Return the user id in the key of a user."""
        name, _, kind = key[len(self.prefix) + 2 :].rpartition("}:")
        return name if kind else key


def _escape_glob(text: str) -> str:
    return "".join(f"\\{character}" if character in "*?[]^\\" else character for character in text)
