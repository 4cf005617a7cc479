"""How people prove who they are to Superset and Airflow: passwords, LDAP or OpenID Connect.

What they may do never comes from there: a name that is no person of the warehouse is refused, and
levels, scopes and rights are those of `./callhouse access`. Imported by the configuration of both
products: the standard library alone at import.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

PROVIDER = "sso"  # part of the address that a provider sends people back to
METHODS = ("password", "ldap", "oidc")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LDAP_SECONDS = 10
_log = logging.getLogger("callhouse.login")


def method(settings: Settings) -> str:
    """One of METHODS, or CallhouseError that names the setting which is wrong."""
    given = settings.environment.get("CALLHOUSE_LOGIN") or "password"
    if given not in METHODS:
        raise CallhouseError(f"CALLHOUSE_LOGIN={given!r} is not one of {', '.join(METHODS)}")
    if given == "ldap":
        for name in ("CALLHOUSE_LDAP_URL", "CALLHOUSE_LDAP_BASE", "CALLHOUSE_LDAP_BIND_DN"):
            _needed(settings, name)
        _encrypted(_needed(settings, "CALLHOUSE_LDAP_URL"), "CALLHOUSE_LDAP_URL", "ldaps")
        _given(settings, "ldap_bind_password")
    if given == "oidc":
        _encrypted(_needed(settings, "CALLHOUSE_OIDC_ISSUER"), "CALLHOUSE_OIDC_ISSUER", "https")
        _needed(settings, "CALLHOUSE_OIDC_CLIENT_ID")
        _given(settings, "oidc_client_secret")
    return given


def configuration(settings: Settings) -> dict[str, Any]:
    """The keys of Flask-AppBuilder's configuration, which both products read."""
    common = {"AUTH_USER_REGISTRATION": False, "AUTH_ROLES_SYNC_AT_LOGIN": False}
    match method(settings):
        case "ldap":
            # Only the type matters: `manager` asks the directory.
            return common | {
                "AUTH_TYPE": 2,
                "AUTH_LDAP_SERVER": _needed(settings, "CALLHOUSE_LDAP_URL"),
            }
        case "oidc":
            issuer = _needed(settings, "CALLHOUSE_OIDC_ISSUER").rstrip("/")
            return common | {
                "AUTH_TYPE": 4,
                "OAUTH_PROVIDERS": [
                    {
                        "name": PROVIDER,
                        "icon": "fa-key",
                        "token_key": "access_token",
                        "remote_app": {
                            "client_id": _needed(settings, "CALLHOUSE_OIDC_CLIENT_ID"),
                            "client_secret": _given(settings, "oidc_client_secret"),
                            "server_metadata_url": f"{issuer}/.well-known/openid-configuration",
                            "client_kwargs": {
                                "scope": "openid profile email", "code_challenge_method": "S256",
                            },
                        },
                    }
                ],
            }  # fmt: skip
    return common | {"AUTH_TYPE": 1}


def manager(base: type[Any], settings: Settings) -> type[Any]:
    """`base`, a product's security manager, taught to ask the directory or the provider."""
    claim = settings.environment.get("CALLHOUSE_OIDC_CLAIM") or "preferred_username"

    class SecurityManager(base):  # type: ignore[misc]
        """Finds out who somebody is; the product's own code decides whether they are known."""

        def get_oauth_user_info(self, provider: str, resp: dict[str, Any]) -> dict[str, Any]:
            """The person named by the signed identity token, which Authlib has checked."""
            name = (resp.get("userinfo") or {}).get(claim)
            if provider != PROVIDER or not name:
                _log.warning("the identity token has no claim %r: see CALLHOUSE_OIDC_CLAIM", claim)
                return {"username": ""}
            return {"username": str(name)}

        def auth_user_ldap(self, username: str, password: str, **more: Any) -> Any:
            """The user whose password the directory accepts, else None."""
            # Before the directory is asked: it is none of its business who else tries.
            user = self.find_user(username=username) if username else None
            if user is None or not user.is_active:
                return None
            if not accepts(settings, username, password):
                self.update_user_auth_stat(user, False)
                return None
            return self.auth_user_oauth({"username": username}, **more)

    return SecurityManager


def accepts(settings: Settings, person: str, password: str) -> bool:
    """Whether the directory knows exactly one such person and takes the password."""
    import ssl

    import ldap3
    from ldap3.core.exceptions import LDAPException
    from ldap3.utils.conv import escape_filter_chars

    if not password:
        return False  # directories take an empty one for an anonymous visitor and say yes
    environment = settings.environment
    attribute = environment.get("CALLHOUSE_LDAP_ATTRIBUTE") or "uid"
    members = environment.get("CALLHOUSE_LDAP_FILTER") or "(objectClass=*)"
    url = _needed(settings, "CALLHOUSE_LDAP_URL")
    tls = ldap3.Tls(
        validate=ssl.CERT_REQUIRED, ca_certs_file=environment.get("CALLHOUSE_LDAP_CA") or None
    )
    server = ldap3.Server(
        url, tls=tls if url.startswith("ldaps:") else None, connect_timeout=LDAP_SECONDS
    )
    common = {"receive_timeout": LDAP_SECONDS, "auto_referrals": False, "raise_exceptions": True}
    try:
        with ldap3.Connection(
            server, _needed(settings, "CALLHOUSE_LDAP_BIND_DN"),
            _given(settings, "ldap_bind_password"), read_only=True, **common,
        ) as reader:  # fmt: skip
            reader.search(
                _needed(settings, "CALLHOUSE_LDAP_BASE"),
                f"(&{members}({attribute}={escape_filter_chars(person)}))",
                size_limit=2,
            )
            found = [one["dn"] for one in reader.response if one["type"] == "searchResEntry"]
    except LDAPException as error:
        _log.error("the directory %s cannot be asked: %s", urlsplit(url).netloc, error)
        return False
    if len(found) != 1:
        _log.warning("the directory knows %d people by the name %r", len(found), person)
        return False
    try:
        with ldap3.Connection(server, found[0], password, **common):
            return True
    except LDAPException:
        return False


def _needed(settings: Settings, name: str) -> str:
    value = settings.environment.get(name)
    if not value:
        raise CallhouseError(f"CALLHOUSE_LOGIN needs {name}: see docs/operators/access.md")
    return value


def _given(settings: Settings, name: str) -> str:
    value = settings.given_secret(name)
    if value is None:
        raise CallhouseError(
            f"CALLHOUSE_LOGIN needs CALLHOUSE_SECRET_{name.upper()} or the file that "
            f"CALLHOUSE_SECRET_{name.upper()}_FILE names"
        )
    return value


def _encrypted(url: str, name: str, scheme: str) -> None:
    """Passwords and tokens cross no network in clear."""
    parts = urlsplit(url)
    if parts.scheme != scheme and parts.hostname not in LOOPBACK:
        raise CallhouseError(f"{name} has to begin with {scheme}://")
