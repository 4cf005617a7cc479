"""What settings of single sign-on are refused, and what the products are told."""

from __future__ import annotations

import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.orchestration.airflow_users import role_of
from callhouse.security import single_sign_on

LDAP = {
    "CALLHOUSE_LOGIN": "ldap",
    "CALLHOUSE_LDAP_URL": "ldaps://directory.example",
    "CALLHOUSE_LDAP_BASE": "dc=example",
    "CALLHOUSE_LDAP_BIND_DN": "cn=reader,dc=example",
    "CALLHOUSE_SECRET_LDAP_BIND_PASSWORD": "x",
}
OIDC = {
    "CALLHOUSE_LOGIN": "oidc",
    "CALLHOUSE_OIDC_ISSUER": "https://login.example/realm/",
    "CALLHOUSE_OIDC_CLIENT_ID": "callhouse",
    "CALLHOUSE_SECRET_OIDC_CLIENT_SECRET": "x",
}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CALLHOUSE_LOGIN": "saml"}, "CALLHOUSE_LOGIN='saml' is not one of"),
        *((LDAP | {name: ""}, name) for name in LDAP if name != "CALLHOUSE_LOGIN"),
        *((OIDC | {name: ""}, name) for name in OIDC if name != "CALLHOUSE_LOGIN"),
        (LDAP | {"CALLHOUSE_LDAP_URL": "ldap://directory.example"}, "has to begin with ldaps://"),
        (OIDC | {"CALLHOUSE_OIDC_ISSUER": "http://login.example"}, "has to begin with https://"),
        # A name that begins like the machine's own is another machine.
        (OIDC | {"CALLHOUSE_OIDC_ISSUER": "http://localhost.example"}, "https://"),
    ],
)
def test_settings_that_cannot_be(environment: dict[str, str], said: str) -> None:
    with pytest.raises(CallhouseError, match=said):
        single_sign_on.configuration(settings_module.load(environment))


@pytest.mark.parametrize(
    ("environment", "kind"), [({}, 1), (LDAP, 2), (OIDC, 4)], ids=["password", "ldap", "oidc"]
)
def test_nobody_registers_and_no_role_comes_from_outside(
    environment: dict[str, str], kind: int
) -> None:
    told = single_sign_on.configuration(settings_module.load(environment))
    assert told["AUTH_TYPE"] == kind
    assert told["AUTH_USER_REGISTRATION"] is False
    assert told["AUTH_ROLES_SYNC_AT_LOGIN"] is False


def test_the_provider_is_found_below_its_issuer() -> None:
    told = single_sign_on.configuration(settings_module.load(OIDC))
    app = told["OAUTH_PROVIDERS"][0]["remote_app"]
    assert app["server_metadata_url"] == (
        "https://login.example/realm/.well-known/openid-configuration"
    )
    assert app["client_kwargs"]["code_challenge_method"] == "S256"


def test_a_directory_that_is_away_lets_nobody_in() -> None:
    away = LDAP | {"CALLHOUSE_LDAP_URL": "ldap://127.0.0.1:9"}
    assert single_sign_on.accepts(settings_module.load(away), "engineer", "x") is False


@pytest.mark.parametrize(
    ("level", "rights", "is_active", "role"),
    [
        ("engineer", [], True, "Op"),
        ("auditor", [], True, "Viewer"),
        ("manager", ["export", "edit"], True, None),
        ("executive", ["admin"], True, "Admin"),
        ("engineer", ["admin"], False, None),
    ],
)
def test_who_has_a_user_of_airflow(
    level: str, rights: list[str], is_active: bool, role: str | None
) -> None:
    assert role_of({"level": level, "rights": rights, "is_active": is_active}) == role
