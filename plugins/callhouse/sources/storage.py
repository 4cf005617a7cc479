"""Files in object storage (`s3://bucket/prefix`): listed, and fetched one by one into the home.

fsspec's s3 takes long to import, and DAG files are parsed with this module's importers.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
PAGES = ("https://", "http://")
TABLES = ("postgresql://", "postgres://", "mysql://", "mariadb://")
EXCHANGES = ("ami://", "amis://")
# What a killed landing left behind is nobody's after this time.
LEFT_OVER_SECONDS = 86_400.0


@dataclass(frozen=True)
class RemoteFile:
    """An object. `version` changes with its content.

    What `is_latest` says of its records holds from now on, also where they said it before.
    """

    address: str
    size_bytes: int
    version: str
    is_latest: bool = False

    @property
    def name(self) -> str:
        """Its name without the way to it."""
        return self.address.rpartition("/")[2]


class Remote(Protocol):
    """What is read from an address piece by piece."""

    def files(self, address: str, since: date | None = None) -> list[RemoteFile]:
        """What lies at the address, oldest first; where that can be told, from `since` on."""

    @contextmanager
    def fetched(self, file: RemoteFile) -> Iterator[Path]:
        """A copy of one piece, which is removed afterwards."""


def is_table(text: str) -> bool:
    """Whether `text` means a table of a database."""
    return text.startswith(TABLES)


def is_exchange(text: str) -> bool:
    """Whether `text` means an exchange that is listened to."""
    return text.startswith(EXCHANGES)


def is_address(text: str) -> bool:
    """Whether `text` means object storage, a table or a paged interface, and not a path."""
    return text.startswith(("s3://", *PAGES)) or is_table(text)


class Storage:
    """Object storage as the instance's settings reach it; credentials are in no message."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened: Any = None

    def files(self, address: str, since: date | None = None) -> list[RemoteFile]:  # noqa: ARG002
        """The object called `address`, or all below it, by address."""
        if not ADDRESS.fullmatch(address):
            raise CallhouseError(f"{address} is no address: write s3://bucket/prefix")
        path = address.removeprefix("s3://").rstrip("/")
        with self._told(address):
            found = self._system().find(path, detail=True)
        files = [
            RemoteFile(
                f"s3://{name}", int(item["size"]),
                str(item.get("VersionId") or item.get("ETag") or item.get("LastModified")),
            )
            for name, item in found.items()
            # A key may end as a folder does, or in what is no name of a file.
            if item["type"] == "file" and name.rpartition("/")[2] not in ("", ".", "..")
        ]  # fmt: skip
        return sorted(files, key=lambda file: file.address)

    @contextmanager
    def fetched(self, file: RemoteFile) -> Iterator[Path]:
        """A copy of the object under its own name, which is removed afterwards."""
        downloads = self.settings.home / "downloads"
        downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in downloads.iterdir():
            if time.time() - old.stat().st_mtime > LEFT_OVER_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=downloads) as folder:
            path = Path(folder) / file.name
            with self._told(file.address):
                self._system().get_file(file.address.removeprefix("s3://"), str(path))
            if path.stat().st_size != file.size_bytes:
                raise CallhouseError(
                    f"{file.address} changed while it was read: land it again when it is complete"
                )
            yield path

    def _system(self) -> Any:
        if self._opened is None:
            from s3fs import S3FileSystem

            # No cache: an object that was not there a minute ago may be there now.
            self._opened = S3FileSystem(
                **self.settings.object_storage, skip_instance_cache=True, use_listings_cache=False
            )
        return self._opened

    @contextmanager
    def _told(self, address: str) -> Iterator[None]:
        """Errors as one sentence."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (OSError, BotoCoreError, ClientError) as error:
            reason = str(error) or type(error).__name__
            raise CallhouseError(
                f"{address} cannot be read ({' '.join(reason.split())[:200]}): check the address, "
                "CALLHOUSE_S3_ENDPOINT and the credentials"
            ) from None
