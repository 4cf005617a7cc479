"""Migrate Superset's metadata database, its permissions and its administrator, in one process.

Run by the Superset environment's Python with the components' environment.
"""

from __future__ import annotations

import os
from pathlib import Path


def main() -> None:
    """Safe to repeat."""
    from flask_migrate import upgrade
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        import superset
        from superset.extensions import appbuilder, security_manager

        upgrade(directory=str(Path(superset.__file__).parent / "migrations"))
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        password = os.environ["CALLHOUSE_ADMIN_PASSWORD"]
        user = security_manager.find_user("admin")
        if user is None:
            role = security_manager.find_role("Admin")
            security_manager.add_user(
                "admin", "Callhouse", "Administrator", "admin@localhost", role, password
            )
        else:
            security_manager.reset_password(user.id, password)


if __name__ == "__main__":
    main()
