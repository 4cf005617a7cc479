"""Ways between boards that take the chosen filters along: `/boards/<slug>/`.

A link in a text tile is the same for everybody, and Superset keeps what somebody chose under a key
in the page's own address. So the link leads here: the address it was followed from tells the board
and the key, and the choice is put into the other board's address, by column instead of by board.
A link that names values itself, `/boards/<slug>/?agent_name=Li%20Na`, is taken at its word instead.
Imported by superset_config.py's modules: no Superset at import.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

ADDRESS = "/boards/"
BOARD = re.compile(r"(?:/superset)?/dashboard/(?P<board>[^/]+)/?")
PERIOD = "filter_time"


def serve(app: Any) -> None:
    """Add `/boards/<slug>/` to the application."""

    @app.route(f"{ADDRESS}<slug>/")  # type: ignore[untyped-decorator]
    def board_link(slug: str) -> Any:
        from flask import redirect, request
        from flask_login import current_user

        place = f"/superset/dashboard/{quote(slug, safe='')}/"
        if not current_user.is_authenticated:
            return redirect(f"/login/?next={place}")
        if request.args:
            named = name(request.args.to_dict(flat=False), _filters(slug))
            return redirect(place + _query(named))
        here = urlsplit(request.referrer or "")
        found = BOARD.fullmatch(here.path) if here.netloc == request.host else None
        key = parse_qs(here.query).get("native_filters_key", [""])[0]
        if found is None or not key:
            return redirect(place)
        chosen = _chosen(found["board"], key)
        target = _filters(slug)
        if not chosen or not target:
            return redirect(place)
        return redirect(place + _query(carry(chosen, _filters(found["board"]), target)))


def _query(carried: dict[str, Any]) -> str:
    import prison

    return f"?native_filters={quote(prison.dumps(carried))}" if carried else ""


def name(values: dict[str, list[str]], target: list[dict[str, Any]]) -> dict[str, Any]:
    """The filters of a board with filters `target` that choose `values` of columns."""
    places = {place: one["id"] for one in target if (place := _column(one))}
    clauses = [{"col": column, "op": "IN", "val": chosen} for column, chosen in values.items()]
    return {
        places[clause["col"]]: _mask(places[clause["col"]], *_choice(clause))
        for clause in clauses
        if clause["col"] in places and clause["col"] != PERIOD
    }


def _choice(clause: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    values = clause["val"]
    return {"filters": [clause]}, {"value": values, "label": ", ".join(map(str, values))}


def carry(
    chosen: dict[str, Any], origin: list[dict[str, Any]], target: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is `chosen` on the board with filters `origin`, for one with filters `target`.

    A cross-filter, which names a chart and columns, narrows more than the filter of its column and
    wins. What the other board has no filter for is left behind.
    """
    places = {place: one["id"] for one in target if (place := _column(one))}
    columns = {one["id"]: _column(one) for one in origin}
    carried: dict[str, Any] = {}
    for identity, choice in sorted(chosen.items(), key=lambda item: item[0] not in columns):
        state, form = choice.get("filterState") or {}, choice.get("extraFormData") or {}
        if identity in columns:
            place = places.get(columns[identity] or "")
            if place and form:
                carried[place] = _mask(place, form, state)
            continue
        for clause in form.get("filters") or ():
            place = places.get(clause.get("col") or "")
            if place and clause.get("op") == "IN":
                carried[place] = _mask(place, *_choice(clause))
    return carried


def _mask(identity: str, form: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return {"id": identity, "extraFormData": form, "filterState": state, "ownState": {}}


def _column(one: dict[str, Any]) -> str | None:
    """What a filter chooses from: its column, or the period."""
    if one.get("filterType") == PERIOD:
        return PERIOD
    targets = one.get("targets") or [{}]
    name = (targets[0].get("column") or {}).get("name")
    return str(name) if name else None


def _filters(board: str) -> list[dict[str, Any]]:
    from superset.models.dashboard import Dashboard

    found = Dashboard.get(board)
    if found is None:
        return []
    configuration = json.loads(found.json_metadata or "{}")
    return list(configuration.get("native_filter_configuration") or ())


def _chosen(board: str, key: str) -> dict[str, Any]:
    """The state of the filters that the page keeps under `key`; empty where it is gone."""
    from superset.commands.dashboard.filter_state.get import GetFilterStateCommand
    from superset.commands.temporary_cache.parameters import CommandParameters
    from superset.exceptions import SupersetException
    from superset.models.dashboard import Dashboard

    found = Dashboard.get(board)
    if found is None:
        return {}
    try:
        state = GetFilterStateCommand(CommandParameters(resource_id=found.id, key=key)).run()
    except SupersetException:
        return {}
    content = json.loads(state) if state else {}
    return content if isinstance(content, dict) else {}
