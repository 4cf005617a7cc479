"""Files in object storage: the same ledger, one look at each object, nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from callhouse import landing, warehouse
from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry, storage

FEED = "floor_contacts"
BUCKET = "recorded-calls"
SECRET = "only-for-the-test-0123456789"
CONTACT = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "amazon_connect" / "contact.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def stored(settings: Settings, cluster: postgres.Cluster, endpoint: str) -> Iterator[Settings]:
    """Settings that reach an empty bucket, a feed that looks there, and nothing landed."""
    client = client_of(endpoint)
    client.create_bucket(Bucket=BUCKET)
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    (settings.feeds_directory / f"{FEED}.yaml").write_text(
        f"feed: {FEED}\nvendor: amazon_connect\nrecord: contacts\n"
        f"location: s3://{BUCKET}/contacts/\n"
    )
    environment = {**settings.environment, "CALLHOUSE_SECRET_S3_SECRET_KEY": SECRET}
    yield replace(
        settings, s3_endpoint=endpoint, s3_region="eu-west-1", s3_access_key="reader",
        environment=environment,
    )  # fmt: skip
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "truncate staging.amazon_connect_contacts, staging.amazon_connect_calls, "
            "staging.amazon_connect_agents, staging.amazon_connect_links, ops.units cascade"
        )


def client_of(endpoint: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id="writer", aws_secret_access_key=SECRET,
    )  # fmt: skip


def put(settings: Settings, key: str, *contact_ids: str) -> None:
    content = "".join(json.dumps(CONTACT | {"ContactId": name}) for name in contact_ids).encode()
    body = gzip.compress(content) if key.endswith(".gz") else content
    client_of(str(settings.s3_endpoint)).put_object(Bucket=BUCKET, Key=key, Body=body)


def contact_ids(settings: Settings) -> list[str]:
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select contact_id from staging.amazon_connect_contacts order by contact_id"
        )
        return [name for (name,) in rows]


def test_an_address_is_landed_like_files(stored: Settings) -> None:
    put(stored, "contacts/2025/06/03/part-1", "a", "b")
    put(stored, "contacts/2025/06/04/part-2.gz", "c")
    put(stored, "elsewhere/part-3", "z")
    results = landing.land(stored, FEED, [f"s3://{BUCKET}/contacts"])
    assert [(r.name, r.status, r.staged) for r in results] == [
        ("part-1", "landed", 2), ("part-2.gz", "landed", 1),
    ]  # fmt: skip
    assert contact_ids(stored) == ["a", "b", "c"]
    again = landing.land(stored, FEED, [f"s3://{BUCKET}/contacts/2025/06/03/part-1"])
    assert [(r.status, r.duplicates) for r in again] == [("already_landed", 2)]
    assert list((stored.home / "downloads").iterdir()) == []


def test_the_same_content_is_one_unit_wherever_it_lies(stored: Settings, tmp_path: Path) -> None:
    put(stored, "contacts/part-1.gz", "a")
    local = tmp_path / "copy"
    local.write_text(json.dumps(CONTACT | {"ContactId": "a"}))
    first = landing.land(stored, FEED, [local])[0]
    second = landing.land(stored, FEED, [f"s3://{BUCKET}/contacts/part-1.gz"])[0]
    assert (first.status, second.status) == ("landed", "already_landed")
    assert first.unit_id == second.unit_id


def test_a_location_is_looked_through_once(
    stored: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    original = storage.Storage.fetched

    def counted(self: storage.Storage, file: storage.RemoteFile) -> Any:
        fetched.append(file.name)
        return original(self, file)

    monkeypatch.setattr(storage.Storage, "fetched", counted)
    put(stored, "contacts/part-1", "a")
    client_of(str(stored.s3_endpoint)).put_object(Bucket=BUCKET, Key="contacts/empty", Body=b"")
    assert [r.status for r in landing.land_inbox(stored, FEED)] == ["refused", "landed"]
    assert landing.land_inbox(stored, FEED) == []
    put(stored, "contacts/part-2", "b")
    put(stored, "contacts/empty", "c")
    assert [r.name for r in landing.land_inbox(stored, FEED)] == ["empty", "part-2"]
    assert fetched == ["empty", "part-1", "empty", "part-2"]
    assert contact_ids(stored) == ["a", "b", "c"]


def test_a_drop_folder_is_looked_at_besides(stored: Settings) -> None:
    folder = stored.inbox / FEED
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "local"
    file.write_text(json.dumps(CONTACT | {"ContactId": "a"}))
    os.utime(file, (1, 1))
    put(stored, "contacts/part-1", "b")
    assert [r.name for r in landing.land_inbox(stored, FEED)] == ["local", "part-1"]
    assert contact_ids(stored) == ["a", "b"]


def test_problems_are_one_sentence_without_the_secret(stored: Settings) -> None:
    nowhere = replace(stored, s3_endpoint="http://127.0.0.1:1")
    stranger = replace(stored, environment={})
    for settings, address, problem in (
        (stored, "s3://no-such-bucket-here/x", "cannot be read"),
        (nowhere, f"s3://{BUCKET}/contacts", "cannot be read"),
        (stored, "s3://", "is no address"),
        (stranger, f"s3://{BUCKET}/contacts", "no secret belongs to it"),
    ):
        with pytest.raises(CallhouseError, match=problem) as told:
            storage.Storage(settings).files(address)
        assert SECRET not in str(told.value)
        assert "\n" not in str(told.value)


def test_an_object_that_changes_meanwhile_is_not_landed(stored: Settings) -> None:
    put(stored, "contacts/part-1", "a")
    found = storage.Storage(stored).files(f"s3://{BUCKET}/contacts")[0]
    put(stored, "contacts/part-1", "a", "b")
    with (
        pytest.raises(CallhouseError, match="changed while it was read"),
        storage.Storage(stored).fetched(found),
    ):
        pass
    assert list((stored.home / "downloads").iterdir()) == []


def test_a_location_that_is_none_is_told(stored: Settings) -> None:
    file = stored.feeds_directory / "odd.yaml"
    file.write_text(
        "feed: odd\nvendor: amazon_connect\nrecord: contacts\nlocation: /var/spool/calls\n"
    )
    try:
        assert any("location: '/var/spool/calls' is no address" in p
                   for p in registry.problems(stored))  # fmt: skip
    finally:
        file.unlink()


def test_parsing_dags_imports_no_object_storage() -> None:
    program = (
        "import sys; from callhouse.orchestration import landing; landing.drops(); "
        "print([name for name in ('s3fs', 'botocore', 'polars') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(settings_module.REPOSITORY / "plugins"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert result.stdout.splitlines()[-1] == "[]"
