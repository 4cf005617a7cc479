"""docker-compose.yml against the specification, the runner and the secrets the code asks for."""

from __future__ import annotations

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from callhouse import settings as settings_module
from callhouse.runner import components, postgres

ROOT = settings_module.REPOSITORY
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([?-])([^}]*))?\}")


def interpolate(value: Any, variables: dict[str, str]) -> Any:
    """Compose's own rule for ${NAME}, ${NAME:-default} and ${NAME:?message}."""
    if isinstance(value, dict):
        return {k: interpolate(v, variables) for k, v in value.items()}
    if isinstance(value, list):
        return [interpolate(v, variables) for v in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if variables.get(name):
            return variables[name]
        assert operator != "?", f"{name} has no value in .env.example"
        return rest or ""

    return VARIABLE.sub(fill, value)


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """What `make secrets` makes of .env.example."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return {name: value or f"generated-{name.lower()}" for name, value in pairs}


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services(text: str, variables: dict[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = interpolate(yaml.safe_load(text), variables)["services"]
    assert len(found) == 14
    return found


def test_it_follows_the_compose_specification(text: str) -> None:
    schema = importlib.resources.files("check_jsonschema").joinpath(
        "builtin_schemas/vendor/compose-spec.json"
    )
    jsonschema.validate(yaml.safe_load(text), json.loads(schema.read_text(encoding="utf-8")))


def test_it_starts_exactly_what_the_runner_starts(services: dict[str, dict[str, Any]]) -> None:
    for name in (*components.BY_NAME, components.COLLECTOR.name, components.RECEIVER.name):
        assert services[name]["command"] == ["python", "-m", "callhouse.runner", "run", name]
        assert services[name]["healthcheck"]["test"][1:] == [
            *("python", "-m", "callhouse.runner", "health", name)
        ]
    for product in ("warehouse", "airflow", "superset"):
        command = services[f"{product}-init"]["command"]
        assert command == ["python", "-m", "callhouse.runner", "prepare", product]
    assert set(services) == {
        "postgres", "warehouse-init", "airflow-init", "superset-init", *components.BY_NAME,
        components.COLLECTOR.name, components.RECEIVER.name,
    }  # fmt: skip


def test_the_server_is_tuned_as_the_embedded_one(services: dict[str, dict[str, Any]]) -> None:
    given = dict(word[2:].split("=", 1) for word in services["postgres"]["command"][1:])
    wanted = {
        name: value for name, value in postgres.TUNING.items() if name != "unix_socket_directories"
    }
    assert wanted.items() <= given.items()


def test_each_service_has_the_secrets_it_needs_and_makes_none(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """A secret that is missing would be generated anew in each container: logins would fail."""
    for name, component in components.BY_NAME.items():
        environment = {**services[name]["environment"], "CALLHOUSE_HOME": str(tmp_path / name)}
        settings = settings_module.load(environment)
        components.component_environment(settings, component.kind)
        assert not (tmp_path / name).exists(), name
    superset = services["superset-web"]["environment"]
    config = (ROOT / "superset" / "superset_config.py").read_text(encoding="utf-8")
    for secret in re.findall(r"""\.secret\(["']([a-z_]+)["']\)""", config):
        assert f"CALLHOUSE_SECRET_{secret.upper()}" in superset
    asked = {
        secret
        for folder in ("alerts", "landing", "transform", "quality", "security", "orchestration")
        for file in (ROOT / "plugins" / "callhouse" / folder).rglob("*.py")
        for secret in re.findall(r"""\.secret\(["']([a-z_]+)["']\)""", file.read_text("utf-8"))
    }
    # Named by purpose and version in the code.
    asked |= {"caller_key", "caller_encryption_key", "caller_erasure_key"}
    assert "people_key" in asked
    for secret in asked:
        assert f"CALLHOUSE_SECRET_{secret.upper()}" in services["airflow-scheduler"]["environment"]


def test_no_secret_is_in_the_file(text: str) -> None:
    for line in text.splitlines():
        if "PASSWORD:" in line or "_KEY:" in line:
            # Required, or of a service outside and empty where there is none.
            assert line.endswith((":?}", ":-}")), line


def test_every_variable_is_explained_in_the_example(text: str, variables: dict[str, str]) -> None:
    used = {match[0] for match in VARIABLE.findall(text)}
    assert used == set(variables)


def test_what_is_published_listens_on_this_machine_only(
    services: dict[str, dict[str, Any]],
) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_nothing_runs_as_root_and_everything_is_watched(
    services: dict[str, dict[str, Any]],
) -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", recipe, flags=re.MULTILINE)[1:]
    assert [stage.split(" AS ")[1].split()[0] for stage in stages] == [
        *("base", "pipeline", "superset")
    ]
    assert all("USER callhouse" in stage for stage in stages[1:])
    for name, service in services.items():
        assert service.get("user") == "postgres" or service["build"]["target"] in recipe
        assert "healthcheck" in service or name.endswith("-init")
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_volumes_are_named(text: str, services: dict[str, dict[str, Any]]) -> None:
    named = set(yaml.safe_load(text)["volumes"])
    used = {volume.split(":")[0] for s in services.values() for volume in s.get("volumes", [])}
    assert used == named
