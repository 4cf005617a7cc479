"""Imports a bundle and creates roles and users. Runs in the Superset environment, job on stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

VIEWER = "Callhouse viewer"
# What every reader of boards does: open, filter, explore with saved metrics; change nothing shared.
VIEWER_PERMISSIONS = {
    "Api": ("can_query", "can_query_form_data", "can_time_range"),
    "AvailableDomains": ("can_read",),
    "Chart": ("can_read",),
    "Charts": ("menu_access",),
    "CurrentUserRestApi": ("can_read", "can_write"),
    "Dashboard": ("can_read",),
    "DashboardFilterStateRestApi": ("can_read", "can_write"),
    "DashboardPermalinkRestApi": ("can_read", "can_write"),
    "Dashboards": ("menu_access",),
    "Database": ("can_read",),
    "Dataset": ("can_read",),
    "Datasource": ("can_external_metadata", "can_get"),
    "Explore": ("can_read",),
    "ExploreFormDataRestApi": ("can_read", "can_write"),
    "ExplorePermalinkRestApi": ("can_read", "can_write"),
    "Home": ("menu_access",),
    "Log": ("can_recent_activity",),
    "MenuApi": ("can_get",),
    "ResetMyPasswordView": ("can_this_form_get", "can_this_form_post"),
    "SecurityRestApi": ("can_read",),
    "Superset": (
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
# What levels and rights add to it.
MANAGER, ANALYST = "Callhouse manager", "Callhouse analyst"
EDITOR, EXPORT = "Callhouse editor", "Callhouse export"
MORE_PERMISSIONS: dict[str, dict[str, tuple[str, ...]]] = {
    MANAGER: {
        "Dashboard": ("can_drill", "can_view_chart_as_table", "can_view_query"),
        "Dataset": ("can_get_drill_info",),
        "Datasource": ("can_samples",),
    },
    ANALYST: {
        "Query": ("can_read",),
        "SQLLab": (
            "can_execute_sql_query",
            "can_format_sql",
            "can_get_results",
            "can_read",
        ),
        "SavedQuery": ("can_read", "can_write"),
        "SQL Editor": ("menu_access",),
        "SQL Lab": ("menu_access",),
        "Saved Queries": ("menu_access",),
        "Query Search": ("menu_access",),
        "Superset": ("can_sqllab", "can_sqllab_history"),
        "TabStateView": (
            "can_activate",
            "can_delete",
            "can_delete_query",
            "can_get",
            "can_post",
            "can_put",
        ),
    },
    EDITOR: {
        "Chart": ("can_write",),
        "Dashboard": ("can_write",),
    },
    EXPORT: {
        "Chart": ("can_export",),
        "Dashboard": ("can_export",),
        "SQLLab": ("can_export_csv",),
        "Superset": ("can_csv",),
    },
}
ROLES_OF_LEVEL = {
    "agent": (VIEWER,),
    "lead": (VIEWER, MANAGER),
    "manager": (VIEWER, MANAGER),
    "executive": (VIEWER,),
    "analyst": (VIEWER, MANAGER, ANALYST),
    "engineer": (VIEWER,),
    "auditor": (VIEWER,),
}
ROLE_OF_RIGHT = {"export": EXPORT, "edit": EDITOR, "admin": "Admin"}


def main() -> None:
    """Do the job on stdin and say on stdout what was done."""
    job = json.load(sys.stdin)
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        from superset import security_manager
        from superset.utils.core import override_user

        created: list[str] = []
        admin = _user(job["admin"] | {"label": "Callhouse administrator"}, ["Admin"], created)
        done = []
        with override_user(admin):
            if job["bundle"]:
                files = _bundle(Path(job["bundle"]))
                _import(files)
                done = [
                    f"{sum(1 for path in files if path.startswith(kind))} {kind}"
                    for kind in ("datasets", "charts", "dashboards")
                ]
            _roles()
            for person in job["people"]:
                scopes = person["scopes"] if person["is_active"] else []
                for scope in scopes:
                    security_manager.add_role(scope)
                roles = [
                    *ROLES_OF_LEVEL[person["level"]],
                    *(ROLE_OF_RIGHT[right] for right in person["rights"]),
                    *scopes,
                ]
                _user(person, roles, created)
            _row_filters(job["filters"])
    done.append(f"{len(job['people'])} people")
    users = f"; new users {', '.join(created)}" if created else ""
    sys.stdout.write(f"imported {', '.join(done)}{users}\n")


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


def _roles() -> None:
    from superset import db, security_manager
    from superset.models.core import Database

    # All of bi: which rows of it a person sees is decided by Postgres.
    database = db.session.query(Database).filter_by(database_name="Callhouse").one()
    schema = security_manager.get_schema_perm(
        database.database_name, database.get_default_catalog(), "bi"
    )
    for name, views in {VIEWER: VIEWER_PERMISSIONS, **MORE_PERMISSIONS}.items():
        role = security_manager.add_role(name)
        wanted = [(permission, view) for view, some in views.items() for permission in some]
        if name == VIEWER:
            wanted.append(("schema_access", schema))
        permissions = [security_manager.add_permission_view_menu(*pair) for pair in wanted]
        if set(role.permissions) != set(permissions):
            role.permissions = permissions
    db.session.commit()


def _row_filters(wanted: list[dict[str, Any]]) -> None:
    """Make the row filters of ours agree with `wanted`; filters that people made stay."""
    from superset import db, security_manager
    from superset.connectors.sqla.models import RowLevelSecurityFilter, SqlaTable
    from superset.models.core import Database

    database = db.session.query(Database).filter_by(database_name="Callhouse").one()
    tables = {
        table.table_name: table
        for table in db.session.query(SqlaTable).filter_by(database_id=database.id)
    }
    taken = {name for one in wanted if one["type"] == "Base" for name in one["tables"] or ()}
    known = {
        one.name: one
        for one in db.session.query(RowLevelSecurityFilter)
        if one.name.startswith("Callhouse")
    }
    for one in wanted:
        row = known.pop(one["name"], None) or RowLevelSecurityFilter(name=one["name"])
        row.filter_type, row.group_key, row.clause = one["type"], one["group"], one["clause"]
        row.description = "Generated by Callhouse from its entitlements: not to be changed here."
        # A dataset that somebody added by hand is open to people only, like the dimensions.
        names = one["tables"] if one["tables"] is not None else sorted(set(tables) - taken)
        row.tables = [tables[name] for name in names if name in tables]
        row.roles = [security_manager.add_role(name) for name in one["roles"]]
        db.session.add(row)
    for row in known.values():
        db.session.delete(row)
    db.session.commit()


def _user(person: dict[str, Any], role_names: list[str], created: list[str]) -> Any:
    from superset import db, security_manager

    roles = [security_manager.find_role(name) for name in role_names]
    user = security_manager.find_user(username=person["name"])
    if user is None:
        user = security_manager.add_user(
            person["name"],
            person["label"],
            "",
            f"{person['name']}@callhouse.invalid",
            roles,
            password=person["password"],
        )
        if not user:
            raise SystemExit(f"Superset could not create the user {person['name']}")
        created.append(person["name"])
    # Roles that an administrator gave by hand stay; those of ours are as the warehouse says.
    others = [r for r in user.roles if not r.name.startswith("Callhouse") and r.name != "Admin"]
    wanted = {*roles, *others}
    is_active = person.get("is_active", True)
    if set(user.roles) != wanted or user.active != is_active:
        user.roles, user.active = list(wanted), is_active
        db.session.commit()
    return user


if __name__ == "__main__":
    main()
