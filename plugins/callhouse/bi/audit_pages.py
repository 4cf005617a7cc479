"""The pages of audits (Data Docs) in Superset, for those who see all calls: they show rows.

Serves the ways between boards, too, which need no page of their own.
"""

from __future__ import annotations

from typing import Any

from callhouse.bi import board_links
from callhouse.bi.superset_access import personal_connection
from callhouse.errors import CallhouseError
from callhouse.settings import Settings

ADDRESS = "/audits/"


def serve(app: Any, settings: Settings) -> None:
    """Add `/audits/` to the application. Row security decides, as for every board."""
    board_links.serve(app)

    @app.route(ADDRESS, defaults={"page": "index.html"})  # type: ignore[untyped-decorator]
    @app.route(f"{ADDRESS}<path:page>")  # type: ignore[untyped-decorator]
    def audit_pages(page: str) -> Any:
        from flask import abort, redirect, send_from_directory
        from flask_login import current_user

        if not current_user.is_authenticated:
            return redirect(f"/login/?next={ADDRESS}")
        if not reads_ledger(settings, current_user.username):
            abort(403)
        return send_from_directory(settings.data_docs, page)


def reads_ledger(settings: Settings, user: str) -> bool:
    """Whether the ledger has rows for `user`; nobody but people of the warehouse has any."""
    try:
        with personal_connection(settings, user) as connection, connection.cursor() as cursor:
            cursor.execute("select sec.reads_ledger()")
            return bool(cursor.fetchone()[0])
    except CallhouseError:
        return False
