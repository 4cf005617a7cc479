"""Where notifications go: channels by name, delivered through Apprise.

Addresses carry tokens and passwords. They are in a file beside the settings that is not under
version control, and reach neither the database nor a log.
"""

from __future__ import annotations

import logging
import mailbox
import re
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document

# Always there: a folder of mail for each person in the home, for those who have nothing else yet.
MAILBOX = "mailbox"
PLACE = "{address}"  # in a channel's address: each person's own
# Of these Apprise takes headers with `+NAME=`: the key then comes where a machine reads it.
WITH_HEADERS = ("json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos")
SECONDS = 10.0  # to connect, and to be answered


@dataclass(frozen=True)
class Channels:
    """Addresses by channel, and by person and channel."""

    addresses: dict[str, str]
    people: dict[str, dict[str, str]]

    @property
    def names(self) -> list[str]:
        """All channels that a rule may name."""
        return [MAILBOX, *self.addresses]


def read(settings: Settings) -> Channels:
    """The channels file; without one only the mailbox. CallhouseError names what cannot be."""
    file = settings.channels_file
    if not file.exists():
        return Channels({}, {})
    node = document.read(file)
    addresses = dict(node.pairs("channels"))
    for name, address in addresses.items():
        if name == MAILBOX or not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
            raise node.error("channels", f"'{name}' cannot be a channel: choose another name")
        if not _parsed(address.replace(PLACE, "nobody@example.com")):
            # Without the address: it may be right but for one letter.
            raise node.error(f"channels.{name}", "is no address that Apprise knows")
    people: dict[str, dict[str, str]] = {}
    found = node.raw("people", {})
    if not isinstance(found, dict):
        raise node.error("people", "must be a block of 'person: {channel: address}' lines")
    for person in found:
        people[person] = dict(document.Node(file, "people", found).pairs(person))
        if unknown := set(people[person]) - set(addresses):
            raise node.error(f"people.{person}", f"there is no channel {', '.join(unknown)}")
    node.finish()
    return Channels(addresses, people)


def _parsed(address: str) -> bool:
    """Whether Apprise can make something of an address."""
    from apprise import Apprise  # takes long to import, and only who sends needs it

    with _Overheard():
        return Apprise.instantiate(address, suppress_exceptions=True) is not None


class _Overheard(logging.Handler):
    """What Apprise says meanwhile in this thread, kept from every log: it may say an address."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.own = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line; other senders' would tell their addresses, of which none is taken out."""
        if record.thread == self.own:
            self.lines.append(record.getMessage())

    def __enter__(self) -> _Overheard:
        self.log = logging.getLogger("apprise")
        self.log.propagate = False
        self.log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.log.removeHandler(self)


@dataclass(frozen=True)
class Letter:
    """What is told: plain text, the same for every channel."""

    key: str  # idempotency key
    title: str
    body: str
    is_urgent: bool
    is_good: bool


def deliver(settings: Settings, channel: str, person: str, letter: Letter) -> str | None:
    """Send to a person through a channel; None where it was taken, else why not."""
    if channel == MAILBOX:
        return _keep(settings, person, letter)
    try:
        known = read(settings)
    except CallhouseError as problem:
        return str(problem)
    address = known.addresses.get(channel)
    if address is None:
        return f"there is no channel {channel} any more"
    if PLACE in address:
        own = known.people.get(person, {}).get(channel)
        if own is None:
            return f"{person} has no address for {channel}"
        address = address.replace(PLACE, quote(own, safe="@"))
    scheme = address.partition("://")[0].lower()
    if scheme in WITH_HEADERS:
        joint = "&" if "?" in address else "?"
        address += f"{joint}%2BX-Idempotency-Key={quote(letter.key)}"
    from apprise import Apprise, AppriseAsset, NotifyType

    kind = NotifyType.INFO
    if letter.is_good:
        kind = NotifyType.SUCCESS
    elif letter.is_urgent:
        kind = NotifyType.FAILURE
    with _Overheard() as overheard:
        service = Apprise.instantiate(
            f"{address}{'&' if '?' in address else '?'}cto={SECONDS}&rto={SECONDS}",
            asset=AppriseAsset(app_id="Callhouse", app_desc="Callhouse", async_mode=False),
            suppress_exceptions=True,
        )
        if service is None:
            return "its address cannot be used"
        try:
            taken = service.notify(body=letter.body, title=letter.title, notify_type=kind)
        except Exception as error:  # noqa: BLE001  # of some plugin: it must not end the notifier
            overheard.lines.append(f"{type(error).__name__}: {error}")
            taken = False
    if taken:
        return None
    return _without(address, " ".join(overheard.lines[-2:]) or "it was not taken")[:300]


def _without(address: str, text: str) -> str:
    """`text` without any part of an address."""
    for part in sorted(re.split(r"[/:@?&=]+", address), key=len, reverse=True):
        if len(part) >= 4 and part not in WITH_HEADERS:
            text = text.replace(part, "***")
    return " ".join(text.split())


def _keep(settings: Settings, person: str, letter: Letter) -> str | None:
    """Put it into the person's folder, once."""
    folder = settings.mail_directory / person
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        box = mailbox.Maildir(folder, create=True)
        message = EmailMessage()
        message["Subject"] = letter.title
        message["From"], message["To"] = "callhouse", person
        message["X-Idempotency-Key"] = letter.key
        message.set_content(letter.body)
        if not any(known.get("X-Idempotency-Key") == letter.key for known in box):
            box.add(message)
    except OSError as error:
        return f"{Path(folder).name}: {error.strerror}"
    return None
