"""People, their entitlements and their personal database logins."""

from __future__ import annotations

import hashlib
import hmac
import re

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

_NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")
# Names that would collide with service logins and groups.
_RESERVED = ("postgres", "airflow", "superset", "public", "callhouse", "pg_")


def check_person(person: str) -> str:
    """`person` if it can be a login name, else CallhouseError."""
    if not _NAME.fullmatch(person) or person.startswith(_RESERVED):
        raise CallhouseError(
            f"{person!r} cannot be a person's login: use lower-case letters, digits and _, "
            "beginning with a letter, and no name of a service"
        )
    return person


def login_password(settings: Settings, person: str) -> str:
    """Password of the person's own Postgres login, derived so that it is stored nowhere."""
    key = settings.secret("people_key").encode()
    return hmac.new(key, person.encode(), hashlib.sha256).hexdigest()


def web_password(settings: Settings, person: str) -> str:
    """Password of the person's Superset user on first start (people may change it there)."""
    return settings.secret(f"person_{check_person(person)}_password")
