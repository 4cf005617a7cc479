"""What the audit trail learns of Superset: an event for each request that shows data or is refused.

Superset's own event log has no address, no log-in, no refusal and no number of rows, so answers are
looked at instead, which no page can leave out. An answer that cannot be noted is not given.
Imported by superset_config.py: no Superset at import, no psycopg.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from callhouse.bi import superset_access
from callhouse.security.trail import journal
from callhouse.settings import Settings

# Method, path and action of what shows data. `object` is what the path itself names.
ROUTES = tuple(
    (method, re.compile(path), action)
    for method, path, action in (
        ("POST", r"/api/v1/chart/data/?", "chart"),
        ("GET", r"/api/v1/chart/data/[^/]+/?", "chart"),
        ("GET", r"/api/v1/chart/(?P<chart>\d+)/data/?", "chart"),
        ("*", r"/superset/explore_json/.*", "chart"),
        ("GET", r"/api/v1/datasource/table/(?P<dataset>\d+)/column/.+/values/?", "chart"),
        ("POST", r"/datasource/samples/?", "drill"),
        ("POST", r"/api/v1/sqllab/execute/?", "sql_lab"),
        ("GET", r"/api/v1/sqllab/results/?", "sql_lab"),
        ("*", r"/api/v1/sqllab/export(?:_streaming)?/.*", "export"),
        ("GET", r"/api/v1/\w+/export/?", "export"),
        ("GET", r"/api/v1/dashboard/(?P<dashboard>[^/]+)/(?:screenshot|thumbnail)/.*", "export"),
        ("GET", r"/api/v1/chart/(?P<chart>\d+)/(?:screenshot|thumbnail)/.*", "export"),
        ("GET", r"/audits/.*\.html", "page"),
    )
)
DASHBOARD = "DashboardRestApi.get"  # however a board is opened, its page asks for this once
# Every page of a board tries this by itself, whether its reader may or not.
BY_ITSELF = re.compile(r"/api/v1/dashboard/\d+/colors")
LOGINS = ("/login", "/api/v1/security/login")
ROWS = re.compile(rb'"rowcount":\s*(\d+)')
REMEMBER_SECONDS = 600.0

_names: dict[tuple[str, str], tuple[float, str]] = {}


def install(app: Any, settings: Settings) -> None:
    """Look at every answer of the application."""

    @app.after_request  # type: ignore[untyped-decorator]
    def note(response: Any) -> Any:
        from flask import request

        if not request.path.startswith(("/static/", "/health")):
            event = _event(request, response)
            if event:
                journal.write(settings, "superset", event)
        return response


def log_query(url: Any, query: str, schema: str | None = None, *_: Any, **__: Any) -> None:
    """QUERY_LOGGER: statements belong to the request that caused them; no password is shown."""
    from flask import g, has_request_context

    superset_access.log_query(url, query, schema)
    if has_request_context():
        g.setdefault("callhouse_statements", []).append(query)


def _event(request: Any, response: Any) -> dict[str, Any] | None:
    path = request.path
    if request.method == "POST" and path.rstrip("/") in LOGINS:
        return _login(request, response)
    status = response.status_code
    action, named = _route(request)
    if action is None:
        if status in (401, 403) and not BY_ITSELF.fullmatch(path):
            action, named = "denied", {"path": f"{request.method} {path}"}
        else:
            return None
    asked = _asked(request) if action in ("chart", "drill", "sql_lab", "export") else {}
    wanted = str(asked.get("result_format") or ("csv" if "csv" in request.args else "")).lower()
    is_export = action == "export" or wanted in ("csv", "xlsx")
    if is_export:
        action = "export"
    elif asked.get("result_type") in ("samples", "drill_detail"):
        action = "drill"
    body = b"" if response.is_streamed or response.direct_passthrough else response.get_data()
    return {
        "action": "denied" if status in (401, 403) else action,
        "person": _user(),
        "address": request.remote_addr,
        "program": "superset",
        "object_name": _object(request, asked, named),
        "statement": _statement(asked),
        "row_count": _rows(action, asked, wanted, body) if status < 400 else None,
        "is_export": is_export,
        "outcome": _outcome(status, body),
    }


def _login(request: Any, response: Any) -> dict[str, Any]:
    given = request.get_json(silent=True) if request.is_json else request.form
    name = given.get("username") if hasattr(given, "get") else None
    user = _user()
    # The page answers both with a redirect, the API tells by its status.
    is_in = response.status_code == 200 if request.path.startswith("/api/") else user is not None
    return {
        "action": "login" if is_in else "login_failed",
        "person": user or (str(name)[:64] if name else None),
        "address": request.remote_addr,
        "program": "superset",
        "outcome": "ok" if is_in else "throttled" if response.status_code == 429 else "refused",
    }


def _route(request: Any) -> tuple[str | None, dict[str, str]]:
    if request.endpoint == DASHBOARD:
        return "dashboard", {"dashboard": str((request.view_args or {}).get("id_or_slug", ""))}
    for method, pattern, action in ROUTES:
        if method in ("*", request.method) and (found := pattern.fullmatch(request.path)):
            return action, found.groupdict() or {"path": request.path}
    return None, {}


def _user() -> str | None:
    from flask import g
    from flask_login import current_user

    # The API's own tokens make no session.
    for user in (current_user, g.get("user")):
        if user is not None and getattr(user, "is_authenticated", False):
            return str(user.username)
    return None


def _asked(request: Any) -> dict[str, Any]:
    """The query that was asked for, from wherever this kind of request carries it."""
    found = request.get_json(silent=True) if request.is_json else None
    if not isinstance(found, dict):
        try:
            found = json.loads(request.values.get("form_data") or "{}")
        except ValueError:
            found = None
    return found if isinstance(found, dict) else {}


def _statement(asked: dict[str, Any]) -> str | None:
    """What the database was asked; of an answer from the cache, what Superset was asked."""
    from flask import g

    if statements := g.get("callhouse_statements"):
        return ";\n".join(statements)
    if sql := asked.get("sql"):
        return str(sql)
    queries = asked.get("queries")
    if not isinstance(queries, list):
        return None
    told = ("columns", "metrics", "filters", "extras", "time_range", "row_limit", "row_offset")
    return json.dumps(
        [{k: q[k] for k in told if q.get(k)} for q in queries if isinstance(q, dict)],
        ensure_ascii=False,
        default=str,
    )


def _object(request: Any, asked: dict[str, Any], named: dict[str, str]) -> str | None:
    """Board, chart and dataset by their names."""
    form = asked.get("form_data")
    if not isinstance(form, dict):
        form = asked
    source = asked.get("datasource")
    dataset = source.get("id") if isinstance(source, dict) else str(source or "").split("__")[0]
    ids = {
        "dashboard": named.get("dashboard") or form.get("dashboardId"),
        "chart": named.get("chart") or form.get("slice_id"),
        "dataset": named.get("dataset") or request.args.get("datasource_id") or dataset,
    }
    parts = [_name(kind, str(number)) for kind, number in ids.items() if number]
    return " / ".join(parts) or named.get("path")


def _name(kind: str, number: str) -> str:
    """Name of a board, chart or dataset; asked of the metadata once in ten minutes."""
    now = time.monotonic()
    if (known := _names.get((kind, number))) and known[0] > now:
        return known[1]
    if not number.isdigit():
        return number  # a slug
    from superset import db
    from superset.connectors.sqla.models import SqlaTable
    from superset.models.dashboard import Dashboard
    from superset.models.slice import Slice

    column = {
        "dashboard": (Dashboard.slug, Dashboard.id),
        "chart": (Slice.slice_name, Slice.id),
        "dataset": (SqlaTable.table_name, SqlaTable.id),
    }[kind]
    found = db.session.query(column[0]).filter(column[1] == int(number)).scalar()
    name = str(found or f"{kind} {number}")
    _names[kind, number] = (now + REMEMBER_SECONDS, name)
    return name


def _rows(action: str, asked: dict[str, Any], wanted: str, body: bytes) -> int | None:
    if action == "dashboard" or not body:
        return None
    if wanted == "csv" or action == "export":
        return max(body.count(b"\n") - 1, 0) if wanted != "xlsx" else None
    if "sql" in asked or action == "sql_lab":
        try:
            return int(json.loads(body)["query"]["rows"])
        except (ValueError, KeyError, TypeError):
            return None
    counts = ROWS.findall(body)
    return sum(int(count) for count in counts) if counts else None


def _outcome(status: int, body: bytes) -> str:
    if status in (401, 403):
        return "denied"
    return "failed" if status >= 400 or b'"status": "failed"' in body else "ok"
