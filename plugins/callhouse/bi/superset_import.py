"""Imports a bundle and creates roles and users. Runs in the Superset environment, job on stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

VIEWER = "Callhouse viewer"
# What a reader of boards does: open, filter, explore, drill down, export; change nothing shared.
VIEWER_PERMISSIONS = {
    "Api": ("can_query", "can_query_form_data", "can_time_range"),
    "AvailableDomains": ("can_read",),
    "Chart": ("can_export", "can_read"),
    "Charts": ("menu_access",),
    "CurrentUserRestApi": ("can_read", "can_write"),
    "Dashboard": (
        "can_drill",
        "can_export",
        "can_read",
        "can_view_chart_as_table",
        "can_view_query",
    ),
    "DashboardFilterStateRestApi": ("can_read", "can_write"),
    "DashboardPermalinkRestApi": ("can_read", "can_write"),
    "Dashboards": ("menu_access",),
    "Database": ("can_read",),
    "Dataset": ("can_get_drill_info", "can_read"),
    "Datasource": ("can_external_metadata", "can_get", "can_samples"),
    "Explore": ("can_read",),
    "ExploreFormDataRestApi": ("can_read", "can_write"),
    "ExplorePermalinkRestApi": ("can_read", "can_write"),
    "Home": ("menu_access",),
    "Log": ("can_recent_activity",),
    "MenuApi": ("can_get",),
    "ResetMyPasswordView": ("can_this_form_get", "can_this_form_post"),
    "SecurityRestApi": ("can_read",),
    "Superset": (
        "can_csv",
        "can_dashboard",
        "can_dashboard_permalink",
        "can_explore",
        "can_explore_json",
        "can_fetch_datasource_metadata",
        "can_file_handler",
        "can_language_pack",
        "can_log",
        "can_share_chart",
        "can_share_dashboard",
        "can_slice",
    ),
    "Theme": ("can_read",),
    "UserDBModelView": ("can_userinfo", "resetmypassword"),
    "security": ("can_read",),
    "user": ("can_read",),
}


def main() -> None:
    """Do the job on stdin and say on stdout what was done."""
    job = json.load(sys.stdin)
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        from superset.utils.core import override_user

        created: list[str] = []
        admin = _user(job["admin"], "Callhouse administrator", "Admin", created)
        with override_user(admin):
            files = _bundle(Path(job["bundle"]))
            _import(files)
            _viewer_role()
            for person in job["people"]:
                _user(person, person["label"], VIEWER, created)
        counts = {
            kind: sum(1 for path in files if path.startswith(kind))
            for kind in ("datasets", "charts", "dashboards")
        }
    what = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    users = f"; new users {', '.join(created)}" if created else ""
    sys.stdout.write(f"imported {what}{users}\n")


def _bundle(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): file.read_text(encoding="utf-8")
        for file in sorted(directory.rglob("*.yaml"))
    }


def _import(files: dict[str, str]) -> None:
    from superset.commands.exceptions import CommandInvalidError
    from superset.commands.importers.v1.assets import ImportAssetsCommand

    try:
        ImportAssetsCommand(files).run()
    except CommandInvalidError as error:
        raise SystemExit(f"Superset refuses the bundle: {error.normalized_messages()}") from None


def _viewer_role() -> None:
    from superset import db, security_manager
    from superset.models.core import Database

    role = security_manager.add_role(VIEWER)
    wanted = [
        (permission, view)
        for view, permissions in VIEWER_PERMISSIONS.items()
        for permission in permissions
    ]
    # All of bi: which rows of it a person sees is decided by Postgres.
    database = db.session.query(Database).filter_by(database_name="Callhouse").one()
    schema = security_manager.get_schema_perm(
        database.database_name, database.get_default_catalog(), "bi"
    )
    wanted.append(("schema_access", schema))
    wanted_views = [security_manager.add_permission_view_menu(*pair) for pair in wanted]
    if set(role.permissions) != set(wanted_views):
        role.permissions = wanted_views
    db.session.commit()


def _user(person: dict[str, str], label: str, role_name: str, created: list[str]) -> Any:
    from superset import db, security_manager

    role = security_manager.find_role(role_name)
    user = security_manager.find_user(username=person["name"])
    if user is None:
        user = security_manager.add_user(
            person["name"],
            label,
            "",
            f"{person['name']}@callhouse.invalid",
            role,
            password=person["password"],
        )
        if not user:
            raise SystemExit(f"Superset could not create the user {person['name']}")
        created.append(person["name"])
    elif role not in user.roles:
        user.roles.append(role)
        db.session.commit()
    return user


if __name__ == "__main__":
    main()
