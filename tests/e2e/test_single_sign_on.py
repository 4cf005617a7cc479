"""Log-ins by OpenID Connect and LDAP, against Superset's and Airflow's own applications."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests import ldap_directory

from callhouse.runner import components
from callhouse.settings import Settings

pytestmark = pytest.mark.timeout(900)
PROBE = Path(__file__).with_name("log_in_probe.py")
CLIENT, SECRET = "callhouse", "only known to the provider and to us"
PRODUCTS: tuple[components.Kind, ...] = ("superset", "airflow")


class Provider(ThreadingHTTPServer):
    """An OpenID provider at which everybody is logged in already: `&as=` says who asks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.key, self.stranger = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
        self.codes: dict[str, dict[str, str]] = {}

    @property
    def issuer(self) -> str:
        """Where it is, which is also its name."""
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    """Discovery, authorisation, token and keys."""

    server: Provider

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Discovery, keys, and sending people back with a code."""
        issuer, parts = self.server.issuer, urlsplit(self.path)
        if parts.path == "/.well-known/openid-configuration":
            self._answer(
                {
                    "issuer": issuer,
                    "authorization_endpoint": f"{issuer}/authorize",
                    "token_endpoint": f"{issuer}/token",
                    "jwks_uri": f"{issuer}/keys",
                    "id_token_signing_alg_values_supported": ["RS256"],
                }
            )
        elif parts.path == "/keys":
            self._answer({"keys": [self.server.key.as_dict(private=False) | {"kid": "1"}]})
        elif parts.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            code = f"code-{len(self.server.codes)}"
            self.server.codes[code] = asked
            self.send_response(302)
            back = urlencode({"code": code, "state": asked["state"]})
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.end_headers()

    def do_POST(self) -> None:
        """A signed identity for a code; a code is good for one token."""
        length = int(self.headers["Content-Length"])
        form = {k: v[0] for k, v in parse_qs(self.rfile.read(length).decode()).items()}
        asked = self.server.codes.pop(form["code"])
        assert asked["code_challenge_method"] == "S256"
        assert form["code_verifier"]
        person = asked["as"]
        key = self.server.stranger if person == "forger" else self.server.key
        now = int(time.time())
        token = jwt.encode(
            {"alg": "RS256", "kid": "1"},
            {
                "iss": self.server.issuer, "aud": CLIENT, "sub": person, "iat": now,
                "exp": now + 60, "nonce": asked["nonce"],
                "preferred_username": "engineer" if person == "forger" else person,
            },
            key,
        )  # fmt: skip
        self._answer({"access_token": "a", "token_type": "Bearer", "id_token": token})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def directory() -> Iterator[str]:
    """Address of a directory that runs."""
    with subprocess.Popen(
        [sys.executable, ldap_directory.__file__], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield f"ldap://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def tried(
    product: Settings, kind: components.Kind, method: str, more: dict[str, str],
    attempts: list[dict[str, str]],
) -> list[str | None]:  # fmt: skip
    """Who was in after each attempt."""
    settings = dataclasses.replace(
        product, environment={**product.environment, **more, "CALLHOUSE_LOGIN": method}
    )
    directory = settings.pipeline_bin if kind == "airflow" else settings.superset_bin
    result = subprocess.run(
        [directory / "python", PROBE, kind],
        input=json.dumps({"method": method, "attempts": attempts}),
        env=components.component_environment(settings, kind),
        cwd=settings.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert ldap_directory.PASSWORD not in result.stderr
    found: list[str | None] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_provider_says_who_somebody_is_and_nothing_more(
    product: Settings, kind: components.Kind, provider: Provider
) -> None:
    more = {
        "CALLHOUSE_OIDC_ISSUER": provider.issuer,
        "CALLHOUSE_OIDC_CLIENT_ID": CLIENT,
        "CALLHOUSE_SECRET_OIDC_CLIENT_SECRET": SECRET,
    }
    attempts = [
        {"person": "engineer"},
        {"person": "nobody_known"},
        {"person": "forger"},  # the token names the engineer, signed with a key of somebody else
        {"person": "engineer", "forged": "yes"},
    ]
    assert tried(product, kind, "oidc", more, attempts) == ["engineer", None, None, None]


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_directory_checks_the_passwords_of_known_people(
    product: Settings, kind: components.Kind, directory: str
) -> None:
    more = {
        "CALLHOUSE_LDAP_URL": directory,
        "CALLHOUSE_LDAP_BASE": ldap_directory.BASE,
        "CALLHOUSE_LDAP_BIND_DN": ldap_directory.BIND_DN,
        "CALLHOUSE_SECRET_LDAP_BIND_PASSWORD": ldap_directory.BIND_PASSWORD,
    }
    right = ldap_directory.PASSWORD
    attempts = [
        {"person": "engineer", "password": right},
        {"person": "engineer", "password": "wrong"},
        {"person": "engineer", "password": ""},
        {"person": "nobody_known", "password": right},  # the directory knows them, we do not
        {"person": "auditor", "password": right},  # two of the directory have this name
        {"person": "*", "password": right},
    ]
    assert tried(product, kind, "ldap", more, attempts) == ["engineer", *[None] * 5]
