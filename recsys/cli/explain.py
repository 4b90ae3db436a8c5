"""`recsys explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from recsys.cli.output import counted, new_table, results, settings_for_command
from recsys.data.event import Identifier
from recsys.errors import MalformedEvent, NoModel, UnknownId
from recsys.operations.histories import ensure_histories
from recsys.recommend.explain import Explanation, explain
from recsys.redis import open_store
from recsys.storage.data_dir import open_data_dir

_REASONS = 3
"""Of those that speak for an item, and of those against it, so many are in the sentences."""


def explain_command(
    user_id: Annotated[str, typer.Argument(metavar="USER_ID")],
    item_id: Annotated[str, typer.Argument(metavar="ITEM_ID")],
    top: Annotated[
        int, typer.Option("--top", min=1, metavar="N", help="Owned items in the table, those that add most.")
    ] = 10,
) -> None:
    """Say why an item has its score for a user, with the history as it is now and the live model.

    It works for any item that the model knows, also for one that is not in the user's list.
    """
    settings = settings_for_command()
    for what, given in (("user", user_id), ("item", item_id)):
        try:
            TypeAdapter(Identifier).validate_python(given)
        except ValidationError:
            raise MalformedEvent(
                f"{given[:40]!r} is not a valid {what} id: use 1 to 256 characters, no control characters"
            ) from None
    data_dir = open_data_dir(settings)
    with open_store(settings) as store:
        store.users.ensure_can_hold(user_id)
        pointer = store.pointer.read()
        if pointer is None:
            raise NoModel("no model is live; make one with recsys retrain, or python -m trainer --once")
        state = store.users.read([user_id])[user_id]
        if state.aside:
            raise UnknownId(f"the history of user {user_id} is incomplete in Redis; the trainer makes it again")
        if state.revision == 0 and not state.history.entries:
            ensure_histories(settings, store, data_dir)
            raise UnknownId(
                f"user {user_id} is unknown: no purchase has been applied yet, so apps show the popular list"
            )
        model = data_dir.models.load(pointer.version, manifest_sha256=pointer.manifest_sha256)
        include_purchased = settings.ranking.include_purchased
        try:
            found = explain(state.history, model, item_id, include_purchased=include_purchased)
        except KeyError:
            raise UnknownId(
                f"item {item_id} is unknown to model {pointer.version}: nobody had bought it when the model was made"
            ) from None
        shown = found.largest(top)
        named = {item_id, *(item for item, _ in found.contributions)}
        titles = store.catalogue.titles(sorted(named))
        hidden = item_id in store.catalogue.hidden()
    if found.owned:
        no_list = "it is in no list, for RECSYS_RANKING__INCLUDE_PURCHASED is false"
        lists = "lists include purchased items" if include_purchased else no_list
        results.print(f"user {user_id} owns {item_id} already: {lists}")
    if hidden:
        results.print(f"item {item_id} is hidden or not available: it is in no list")
    if not found.contributions:
        results.print(f"the model knows nothing that user {user_id} owns: the score is the item's demand alone")
    for line in sentences(user_id, item_id, found, titles):
        results.print(line)
    results.print(parts_table(f"The score of {item_id} for {user_id} (model {pointer.version})", shown, titles))


def sentences(user_id: str, item_id: str, found: Explanation, titles: Mapping[str, str]) -> list[str]:
    """Say what speaks for an item and what against it, the biggest reason first."""
    reasons = [*((_owned(item, item_id, titles), part) for item, part in found.contributions)]
    reasons.append(("it is in demand now" if found.demand > 0 else "it is in little demand now", found.demand))
    reasons.append(
        ("the user buys it again and again" if found.habit > 0 else "the user is not due to buy it again", found.habit)
    )
    for_it = sorted((reason for reason in reasons if reason[1] > 0), key=lambda reason: -reason[1])
    against = sorted((reason for reason in reasons if reason[1] < 0), key=lambda reason: reason[1])
    name = f"{titles[item_id]} ({item_id})" if item_id in titles else item_id
    scores = f"{name} scores {found.score:.4f} for user {user_id}"
    told = [f"{scores}: {_listed(for_it)}." if for_it else f"{scores}: nothing speaks for it."]
    if against:
        told.append(f"Against it: {_listed(against)}.")
    return told


def _owned(item: str, explained: str, titles: Mapping[str, str]) -> str:
    return "the user owns it already" if item == explained else f"the user owns {titles.get(item, item)}"


def _listed(reasons: list[tuple[str, float]]) -> str:
    told = [f"{words} ({part:+.4f})" for words, part in reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        told.append(f"{counted(len(reasons) - _REASONS, 'smaller reason')}")
    return f"{', '.join(told[:-1])}, and {told[-1]}" if len(told) > 1 else told[0]


def parts_table(title: str, found: Explanation, titles: Mapping[str, str]) -> Table:
    """Return the parts of a score, the biggest first, and their sum."""
    parts = [("owned", item, titles.get(item, ""), part) for item, part in found.contributions]
    parts.append(("demand now", "", "", found.demand))
    if found.habit:
        parts.append(("habit", "", "", found.habit))
    if found.other_items:
        parts.append(("owned", counted(found.other_items, "other item"), "", found.others))
    table = new_table(title)
    table.add_column("part", no_wrap=True)
    table.add_column("item", overflow="fold")
    if titles:
        table.add_column("title", overflow="fold")
    table.add_column("adds", justify="right", no_wrap=True)
    for kind, item, name, part in sorted(parts, key=lambda row: -row[-1]):
        table.add_row(kind, item, *([name] if titles else []), f"{part:+.4f}")
    table.add_section()
    table.add_row("score", "", *([""] if titles else []), f"{found.score:.4f}", style="bold")
    return table
