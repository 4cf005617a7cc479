"""Mails: one message per recipient, handed to the mail server, or kept where there is none."""

from __future__ import annotations

import csv
import html
import io
import os
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

TIMEOUT_SECONDS = 60
KEPT_DAYS = 30


def directory(settings: Settings) -> Path:
    """Where mails are kept without a mail server. Only the account itself reads them."""
    return settings.home / "reports" / "kept"


def compose(
    subject: str, lines: Sequence[str], link: tuple[str, str] | None = None,
    picture: bytes | None = None, attachments: Mapping[str, bytes] | None = None,
) -> EmailMessage:  # fmt: skip
    """A message without addresses: `lines` as text and HTML, the picture within, files attached.

    `link`: words and address. Attachments by file name, `.pdf` or `.csv`.
    """
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="callhouse.invalid")
    # Nobody's absence note answers a program.
    message["Auto-Submitted"] = "auto-generated"
    text = list(lines) + ([f"{link[0]}: {link[1]}"] if link else [])
    message.set_content("\n\n".join(text) + "\n")
    body = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    if link:
        body += f'<p><a href="{html.escape(link[1], quote=True)}">{html.escape(link[0])}</a></p>'
    cid = make_msgid(domain="callhouse.invalid")
    if picture:
        body += f'<img src="cid:{cid[1:-1]}" style="max-width:100%" alt="">'
    message.add_alternative(
        f'<html><body style="font-family:sans-serif;color:#1D2733">{body}</body></html>',
        subtype="html",
    )
    if picture:
        page = message.get_payload()[1]  # type: ignore[index]
        page.add_related(picture, "image", "png", cid=cid, disposition="inline")  # type: ignore[union-attr]
    for name, content in (attachments or {}).items():
        kind = ("application", "pdf") if name.endswith(".pdf") else ("text", "csv")
        message.add_attachment(content, maintype=kind[0], subtype=kind[1], filename=name)
    return message


def deliver(
    settings: Settings, message: EmailMessage, address: str | None, name: str
) -> str | None:
    """Hand `message` to the mail server; without one keep it, and return the file's path.

    CallhouseError where it cannot be delivered; then it was not.
    """
    server = settings.mail_server
    message["From"] = server.sender if server else "callhouse@callhouse.invalid"
    message["To"] = address or f"{name}@callhouse.invalid"
    if server is None:
        return str(_keep(settings, message, name))
    if address is None:
        raise CallhouseError("no mail address is known: `./callhouse access contact` sets one")
    try:
        secure = ssl.create_default_context()
        client: smtplib.SMTP = (
            smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_SECONDS, context=secure)
            if server.security == "tls"
            else smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)
        )
        with client:
            if server.security == "starttls":
                client.starttls(context=secure)
            if server.user:
                client.login(server.user, settings.given_secret("smtp_password") or "")
            client.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise CallhouseError(
            f"the mail server {server.host}:{server.port} did not take it ({_told(error)})"
        ) from None
    return None


def _told(error: Exception) -> str:
    """What the server said, shortly; it may quote addresses, never the message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _keep(settings: Settings, message: EmailMessage, name: str) -> Path:
    folder = directory(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.glob("*.eml"):
        written = datetime.fromtimestamp(old.stat().st_mtime, UTC)
        if written < datetime.now(UTC) - timedelta(days=KEPT_DAYS):
            old.unlink(missing_ok=True)
    file = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}_{name}.eml"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(message.as_bytes(policy=SMTP))
    return file


def table(
    columns: Sequence[str], labels: Sequence[str], rows: Sequence[Sequence[Any]],
    times: Sequence[str], zone: str,
) -> bytes:  # fmt: skip
    """CSV that spreadsheets open as it is: UTF-8 with a mark, instants on a clock of `zone`.

    `times`: columns of milliseconds since 1970; those named `_at` are instants, others dates.
    """
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow([_harmless(label) for label in labels])
    for row in rows:
        writer.writerow(
            _moment(value, column, zone) if column in times else _harmless(value)
            for column, value in zip(columns, row, strict=True)
        )
    return written.getvalue().encode("utf-8-sig")


def _moment(value: Any, column: str, zone: str) -> Any:
    if not isinstance(value, int | float):
        return _harmless(value)
    at = datetime.fromtimestamp(value / 1000, UTC)
    if column.endswith("_at"):
        return at.astimezone(ZoneInfo(zone)).isoformat(timespec="seconds")
    return at.date().isoformat()


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula, made a text again."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value
