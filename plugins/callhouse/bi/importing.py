"""Bringing a bundle and the people into Superset, from the pipeline environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import components
from callhouse.security import web_password
from callhouse.settings import Settings

_SCRIPT = Path(__file__).with_name("superset_import.py")


def import_assets(settings: Settings, bundle: Path) -> str:
    """Import the bundle in folder `bundle`, and see to the users of everyone in sec.people.

    Returns one line that says what was done. Safe to repeat; removes nothing that people made.
    """
    with warehouse.connect(settings) as connection:
        people = connection.execute("select person, label from sec.people order by 1").fetchall()
    job = {
        "bundle": str(bundle),
        "admin": {"name": "admin", "password": settings.secret("superset_admin_password")},
        "people": [
            {"name": name, "label": label, "password": web_password(settings, name)}
            for name, label in people
        ],
    }
    # Passwords travel by stdin: arguments and environments can be read by others.
    result = subprocess.run(
        [settings.superset_bin / "python", _SCRIPT],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        cwd=settings.home,
        env=components.component_environment(settings, "superset"),
    )
    if result.returncode:
        log = settings.log_directory / "superset_import.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(result.stderr, encoding="utf-8")
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "no message"
        raise CallhouseError(f"the boards could not be imported: {reason} (see {log})")
    return result.stdout.strip().splitlines()[-1]
