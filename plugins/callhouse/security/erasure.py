"""Erasing a caller: everywhere, for good, and without changing a count.

A pseudonym takes the place of the token. What can tell the number is deleted or overwritten; what
comes again is given the same pseudonym by landing, and its row is known as the same row.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import phonenumbers
import polars as pl
import psycopg
from psycopg import sql

from callhouse import transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import REFUSED, cold, store
from callhouse.landing.callers import Callers, Cipher, Erasure, Keys, PhoneBook, hold_keys
from callhouse.runner import postgres
from callhouse.security import callers
from callhouse.security.trail import journal
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Feed, RefusedError, Rejected

# Of shorter ones the digits may be anything: they are looked for where the reader finds callers.
DISTINCT = 7
# Vendors whose rows are lines, with the md5 of a line as their identity.
OF_LINES = ("asterisk", "delimited")
BETWEEN = r"[ ().\-/]{0,2}"
PENDING = ".erasing"
# Not swept: the server's files, what nobody but the account reads, what is rewritten by itself.
KEPT_FOLDERS = ("postgres", "secrets", "trail", "certificates", "archive", "inbox", "cache")
SWEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Who:
    """A caller as it is kept: `phone` and a number in E.164 or bare digits, or `id` of a source."""

    kind: str
    value: str
    source: str = ""

    @property
    def is_distinct(self) -> bool:
        """Whether the text alone, wherever it stands, is this caller."""
        return len(re.sub(r"\W", "", self.value)) >= DISTINCT

    def pattern(self, *, wide: bool = True) -> str:
        """A regular expression of its spellings, for Python and PostgreSQL; `wide`: also １３８."""
        if self.kind == "id":
            return rf"(?<![0-9A-Za-z]){re.escape(self.value)}(?![0-9A-Za-z])"
        digits, prefix = self.value.removeprefix("+"), ""
        if self.value.startswith("+"):
            number = phonenumbers.parse(self.value)
            code, digits = str(number.country_code), str(number.national_number)
            prefix = rf"(?:(?:\+|00)?{BETWEEN}{BETWEEN.join(code)}{BETWEEN}|0{BETWEEN})?"
        one = [f"(?:{d}|{chr(ord(d) + 0xFEE0)})" if wide else d for d in digits]
        return rf"(?<![0-9]){prefix}{BETWEEN.join(one)}(?![0-9])"


@dataclass
class Certificate:
    """What was erased where, what remains, and why."""

    erased_at: str
    erased_by: str
    reason: str
    pseudonym: str
    is_dry_run: bool = False
    erased: dict[str, int] = field(default_factory=dict)  # place → rows, lines or occurrences
    remains: list[str] = field(default_factory=list)
    file: str = ""

    @property
    def text(self) -> str:
        """For people."""
        lines = [
            "Certificate of erasure" + (" (dry run: nothing was changed)" * self.is_dry_run),
            f"erased at: {self.erased_at}",
            f"by: {self.erased_by}",
            f"reason: {self.reason}",
            f"pseudonym in the place of the caller: {self.pseudonym}",
            "", "Erased or overwritten:",
            *(f"- {place}: {count}" for place, count in self.erased.items()),
            "", "Remains, and why:",
            *(f"- {sentence}" for sentence in self.remains),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


REMAINS = (
    (
        "calls with their times, durations, region and the pseudonym: counts stay as they were, "
        "and nobody without the key caller_erasure_key can tell whose calls they are"
    ),
    "a keyed digest of the number (pii.erased_callers): what comes again is kept from coming back",
    (
        "entries of the audit trail, which cannot be changed: numbers are masked in them, of a "
        "token the first eight digits are kept"
    ),
    (
        "backups, write-ahead logs and copies elsewhere, files of the source itself (a log that is "
        "followed, object storage, other databases), mails that were sent: they are the operator's"
    ),
)


# ---------------------------------------------------------------- who
def by_number(text: str) -> Who:
    """The caller with a number, however it is written; numbers without prefix are Chinese."""
    found = PhoneBook("CN").look_up(pl.Series([text.strip()]))
    number = found.item(0, "number")
    if number is None:
        raise CallhouseError("that is no number: write it as +8613800138000 or 13800138000")
    return Who("phone", number)


def by_id(text: str) -> Who:
    """The customer `SOURCE:ID`."""
    source, _, value = text.partition(":")
    if not source or not value:
        raise CallhouseError("that is no customer: write SOURCE:ID")
    return Who("id", value, source)


def by_token(settings: Settings, token: uuid.UUID) -> Who:
    """The caller behind a token, as far as one is kept."""
    with warehouse.connect(settings) as connection:
        keys = hold_keys(connection)
        row = connection.execute(
            "select kind, content from pii.callers where caller_token = %s", [token]
        ).fetchone()
        sources = connection.execute("select source from ops.sources order by 1").fetchall()
    if row is None:
        raise CallhouseError("no caller with that token is kept: was it erased already?")
    value = callers.decrypted(Cipher(settings, keys.encryption), row[1]).decode()
    for (source,) in sources:
        if Callers(settings, source, None, keys).token(row[0], value) == token.bytes:
            return Who(row[0], value, "" if row[0] == "phone" else source)
    raise CallhouseError("the token is not of the secret caller_key of the version in use")


# ---------------------------------------------------------------- erase
def erase(settings: Settings, who: Who, by: str, reason: str, *, is_dry: bool) -> Certificate:
    """Erase a caller everywhere that Callhouse keeps something; returns the certificate.

    Files are written anew beside the old ones, then the database changes in one transaction, then
    files take their places; what was interrupted between is finished by the next erasure. Safe to
    repeat: what is done already is found no more.
    """
    from callhouse.security.trail.entries import masked

    if not reason.strip():
        raise CallhouseError("say why with --reason: it is kept in the certificate")
    shown = re.sub(who.pattern(), "***", masked(reason))
    with transform.standstill(settings), warehouse.connect(settings) as connection:
        keys = callers.exclude_landing(connection)
        # Nobody knows in which archived days the caller is.
        cold.hold(connection)
        cold.thaw(settings, connection)
        _finish_pending(settings, keys)
        erasure = Erasure(settings, is_first=not keys.erased)
        pseudonym = erasure.pseudonym(who.kind, who.value, who.source)
        token = Callers(settings, who.source, None, keys).token(who.kind, who.value)
        done = Certificate(
            datetime.now(UTC).isoformat(timespec="seconds"), by, shown,
            str(uuid.UUID(bytes=pseudonym)), is_dry, remains=list(REMAINS),
        )  # fmt: skip
        case = _Case(settings, connection, keys, erasure, who, token, pseudonym, done)
        case.replace_tokens(by, shown)
        case.quarantine()
        case.texts()
        folder = settings.archive / PENDING / pseudonym.hex()
        case.files(folder, _raw_files(settings))
        if is_dry:
            connection.rollback()
            shutil.rmtree(folder, ignore_errors=True)
            return done
    # From here on the database has forgotten: what follows is finished even after a kill.
    _put_in_place(folder)
    case.other_databases()
    case.caches_and_logs()
    _certify(settings, done)
    return done


def hide_again(settings: Settings, name: str, path: Path) -> None:
    """Put marks for erased callers into a landed file of feed `name` before it is archived."""
    with warehouse.connect(settings) as connection:
        keys = hold_keys(connection)
    if not keys.erased:
        return
    feed = registry.feed(settings, name)
    erasure = Erasure(settings)
    for who, pseudonym in _erased_in(feed, path, erasure, keys):
        folder = settings.archive / PENDING / pseudonym.hex()
        done = Certificate("", "", "", "")
        with warehouse.connect(settings) as connection:
            hold_keys(connection)
            _Case(settings, connection, keys, erasure, who, b"", pseudonym, done).files(
                folder, [(path, feed)]
            )
        _put_in_place(folder)


def _erased_in(feed: Feed, path: Path, erasure: Erasure, keys: Keys) -> list[tuple[Who, bytes]]:
    found = {}
    with feed.open(path) as file:
        rule = file.caller
        if rule is None or not file.record.has_caller:
            return []
        book = PhoneBook(rule.country) if rule.country else None
        for batch in file.batches(file.inspect()):
            text = batch.rows.get_column("caller").drop_nulls().unique()
            for value in (book.look_up(text).get_column("number") if book else text).drop_nulls():
                who = Who("phone", value) if book else Who("id", value, feed.name)
                pseudonym = erasure.pseudonym(who.kind, who.value, who.source)
                if pseudonym in keys.erased:
                    found[who] = pseudonym
    return list(found.items())


class _Case:
    """One caller on the way out; counts what it does in `done`."""

    def __init__(
        self, settings: Settings, connection: psycopg.Connection, keys: Keys, erasure: Erasure,
        who: Who, token: bytes, pseudonym: bytes, done: Certificate,
    ) -> None:  # fmt: skip
        self.settings, self.connection, self.keys, self.erasure = (
            settings,
            connection,
            keys,
            erasure,
        )
        self.who, self.token, self.pseudonym, self.done = who, token, pseudonym, done
        found = PhoneBook("ZZ").look_up(pl.Series([who.value])) if who.kind == "phone" else None
        self.region: str | None = found.item(0, "region") if found is not None else None

    def count(self, place: str, number: int) -> None:
        if number:
            self.done.erased[place] = self.done.erased.get(place, 0) + number

    # ------------------------------------------------------------ the warehouse
    def replace_tokens(self, by: str, reason: str) -> None:
        """Pseudonym for token and keyed hash for hash in every table; the number is deleted."""
        run = self.connection.execute
        run(
            "insert into pii.erased_callers (pseudonym, erased_by, reason) values (%s, %s, %s) "
            "on conflict do nothing",
            [uuid.UUID(bytes=self.pseudonym), by, reason],
        )
        run("create temporary table moved_callers (old uuid, new uuid) on commit drop")
        old, new = (uuid.UUID(bytes=one) for one in (self.token, self.pseudonym))
        run("insert into moved_callers values (%s, %s)", [old, new])
        self._replace_hashes(old)
        self.count("pii.callers (the encrypted number and its mask)", run(
            "delete from pii.callers where caller_token = %s", [old]
        ).rowcount)  # fmt: skip
        for table, rows in callers.replace_tokens(self.connection, version=0).items():
            self.count(f"{table} (token)", rows)
        callers.abandon_builds(self.connection)

    def _replace_hashes(self, token: uuid.UUID) -> None:
        """The md5 of a row would let anyone try numbers until it fits."""
        run = self.connection.execute
        tables = [
            (sql.Identifier(schema, name), has_token)
            for schema, name, has_token in run(
                "select n.nspname, c.relname, exists (select from pg_attribute as t "
                "where t.attrelid = c.oid and t.attname = 'caller_token') from pg_class as c "
                "inner join pg_namespace as n on c.relnamespace = n.oid "
                "inner join pg_attribute as a on c.oid = a.attrelid and a.attname = 'row_hash' "
                "where n.nspname in ('staging', 'live') and c.relkind in ('r', 'p') "
                "and not c.relispartition order by 1, 2"
            ).fetchall()
        ]
        run("create temporary table erased_rows (old uuid primary key, new uuid) on commit drop")
        for table, has_token in tables:
            if has_token:
                hashes = run(
                    sql.SQL("select distinct row_hash from {} where caller_token = %s").format(
                        table
                    ),
                    [token],
                ).fetchall()
                with self.connection.cursor() as cursor:
                    cursor.executemany(
                        "insert into erased_rows values (%s, %s) on conflict do nothing",
                        [(h, uuid.UUID(bytes=self.erasure.row(h.bytes))) for (h,) in hashes],
                    )
        for table, has_token in tables:
            run(
                sql.SQL(
                    "update {} as t set row_hash = e.new from erased_rows as e "
                    "where t.row_hash = e.old{}"
                ).format(table, sql.SQL(" and t.caller_token = %s" if has_token else "")),
                [token] if has_token else [],
            )

    def quarantine(self) -> None:
        """Rows that could not be read: the mark in what is kept encrypted."""
        pattern = re.compile(self.who.pattern().encode())
        cipher = Cipher(self.settings, self.keys.encryption)
        changed = []
        with self.connection.cursor("kept") as rows:
            rows.execute(
                "select q.unit_id, q.line_number, q.content from ops.quarantine as q "
                "inner join ops.units as u on q.unit_id = u.unit_id "
                "where %s in ('', u.source) and q.content <> ''",  # emptied by retention
                [self.who.source],
            )
            for unit_id, line, kept in rows:
                content = callers.decrypted(cipher, kept)
                new = pattern.sub(self._mark(hashlib.md5(content).digest()), content)  # noqa: S324
                if new != content:
                    changed.append((unit_id, line, new))
        if not self.who.is_distinct:
            if changed:
                self.done.remains.append(
                    f"{len(changed)} rows in quarantine where {len(self.who.value)} characters are "
                    "the same as the caller's, which may be anything: look at them, discard or "
                    "replay them"
                )
            return
        for unit_id, line, new in changed:
            self.connection.execute(
                "update ops.quarantine set content = %s, preview = %s "
                "where unit_id = %s and line_number = %s",
                [cipher.encrypt(new), store.preview(new, has_ids=self.who.kind == "id"), unit_id,
                 line],
            )  # fmt: skip
        self.count("ops.quarantine (content and preview)", len(changed))

    def _mark(self, row_hash: bytes | None) -> bytes:
        return self.erasure.mark(self.pseudonym, row_hash, self.region).encode()

    def texts(self) -> None:
        """Reasons, notes and names of the ledger; elsewhere texts are only looked at."""
        for schema in ("ops", "staging", "marts", "sec", "reference"):
            for place, rows in _sweep(
                self.connection, schema, self._texts(), is_replaced=schema == "ops"
            ).items():
                if schema == "ops":
                    self.count(place, rows)
                else:
                    self.done.remains.append(
                        f"{rows} rows of {place} hold the number or token in a text that is no "
                        "caller: correct the source's mapping, or end what it says"
                    )
        with warehouse.connect(self.settings, "callhouse_trail") as trail:
            row = trail.execute(
                "select count(*) from trail.entries where statement ~ %(p)s or object_name ~ %(p)s",
                {"p": self._texts()},
            ).fetchone()
        if row and row[0]:
            self.done.remains.append(f"{row[0]} entries of the audit trail that name it in full")

    def _texts(self) -> str:
        """A regular expression of token and, where it can be told, number."""
        token = str(uuid.UUID(bytes=self.token))
        patterns = [token, token.replace("-", "")]
        return "|".join(patterns + [self.who.pattern()] * self.who.is_distinct)

    # ------------------------------------------------------------ files
    def files(self, folder: Path, raw: Iterable[tuple[Path, Feed | None]]) -> None:
        """Write what holds the caller anew into `folder`, and let the ledger know the new content.

        The ledger, so that the file that takes its place is the file that has been landed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        places: list[tuple[str, Path]] = []
        for path, feed in raw:
            try:
                content, is_gzip = _content(path)
            except (OSError, EOFError, gzip.BadGzipFile) as error:
                self.done.remains.append(f"{path.name} cannot be read ({error}): remove it")
                continue
            changed = self.rewritten(content, path, feed)
            if changed is None:
                continue
            # Under its own name, by which its feed knows what it holds.
            target = folder / str(len(places)) / path.name
            target.parent.mkdir(parents=True, mode=0o700)
            target.write_bytes(gzip.compress(changed[0]) if is_gzip else changed[0])
            shutil.copystat(path, target)
            places.append((str(target.relative_to(folder)), path))
            self.count(str(path.relative_to(self.settings.home)), changed[1])
            if feed is not None:
                self._know(feed, path, target)
        if places:
            (folder / "places.json").write_text(
                json.dumps({name: str(path) for name, path in places}), encoding="utf-8"
            )

    def _know(self, feed: Feed, path: Path, target: Path) -> None:
        """The unit of the file has another content hash now."""
        hashes = []
        for one in (path, target):
            try:
                with feed.open(one) as file:
                    hashes.append(file.inspect().content_hash)
            except (RefusedError, OSError):
                return  # refused: it has no unit
        self.connection.execute(
            "update ops.units as u set content_hash = %(new)s "
            "|| substr(u.content_hash, length(%(old)s) + 1) || case when exists ("
            "select from ops.units as o where o.source = u.source and o.content_hash = %(new)s) "
            "then ' again in ' || u.unit_id else '' end where u.source = %(source)s "
            "and (u.content_hash = %(old)s or starts_with(u.content_hash, %(old)s || ' '))",
            {"old": hashes[0], "new": hashes[1], "source": feed.name},
        )

    def rewritten(self, content: bytes, path: Path, feed: Feed | None) -> tuple[bytes, int] | None:
        """`content` with marks in the place of the caller, and how many lines; None: none."""
        pattern = re.compile(self.who.pattern().encode())
        if not pattern.search(content):
            return None
        is_of_lines = feed is not None and feed.vendor in OF_LINES
        hashes, reader = _rows_of(feed, path, self.who) if feed else ({}, None)
        if not self.who.is_distinct and not hashes:
            return None
        lines, changed = content.split(b"\n"), 0
        for index, line in enumerate(lines):
            if not pattern.search(line):
                continue
            row_hash = hashes.get(index + 1) if is_of_lines else None
            if self.who.is_distinct:
                known = row_hash or hashlib.md5(line.removesuffix(b"\r")).digest()  # noqa: S324
                lines[index] = pattern.sub(self._mark(known if is_of_lines else None), line)
                changed += 1
            elif row_hash and reader:
                lines[index] = self._in_its_cell(reader, index + 1, line, pattern, row_hash)
                changed += lines[index] != line
        return (b"\n".join(lines), changed) if changed else None

    def _in_its_cell(
        self, reader: Any, number: int, line: bytes, pattern: re.Pattern[bytes], row_hash: bytes
    ) -> bytes:
        """The line with the mark where the reader finds the caller: an id may stand elsewhere."""
        for found in pattern.finditer(line):
            new = line[: found.start()] + self._mark(row_hash) + line[found.end() :]
            row = Rejected(number, "erased", "", None, new.removesuffix(b"\r"))
            batch = reader.again([row], reader.layout)
            if batch.rows.height == 1 and batch.rows.item(0, "caller") == self._mark(
                row_hash
            ).decode():  # fmt: skip
                return new
        self.done.remains.append(f"a line of {reader.name} whose caller was not found again")
        return line

    # ------------------------------------------------------------ what is around
    def other_databases(self) -> None:
        """Superset's queries, logs and saved states; Airflow's logs."""
        for database in ("superset", "airflow"):
            try:
                with psycopg.connect(
                    self.settings.dsn(database, database), connect_timeout=10
                ) as other:
                    found = _sweep(other, "public", self._texts(), is_replaced=True)
                    found |= _sweep_states(other, self._texts())
            except psycopg.OperationalError as error:
                self.done.remains.append(
                    f"database {database} could not be reached ({str(error).strip()[:80]}): erase "
                    "again when it runs"
                )
                continue
            for place, rows in found.items():
                self.count(f"database {database}, {place}", rows)

    def caches_and_logs(self) -> None:
        """Superset's caches are emptied; in logs and pages the caller is overwritten in place."""
        for folder in (self.settings.home / "cache").glob("*"):
            files = [file for file in folder.rglob("*") if file.is_file()]
            for file in files:
                file.unlink(missing_ok=True)
            self.count(f"cache/{folder.name} (emptied)", len(files))
        pattern = re.compile(self._texts().encode(), re.IGNORECASE)
        for file in _swept_files(self.settings):
            self.count(str(file), _overwrite(file, pattern))


# ---------------------------------------------------------------- helpers
def _sweep(
    connection: psycopg.Connection, schema: str, pattern: str, *, is_replaced: bool
) -> dict[str, int]:
    """Rows by column of a schema's texts that `pattern` is found in; replaced where wanted."""
    found: dict[str, int] = {}
    columns = connection.execute(
        "select c.relname, a.attname, format_type(a.atttypid, null) from pg_class as c "
        "inner join pg_attribute as a on c.oid = a.attrelid "
        "where c.relnamespace = to_regnamespace(%s) and c.relkind in ('r', 'p') "
        "and not c.relispartition and a.attnum > 0 and not a.attisdropped "
        "and a.atttypid in ('text'::regtype, 'varchar'::regtype, 'json'::regtype, "
        "'jsonb'::regtype, 'text[]'::regtype) order by 1, a.attnum",
        [schema],
    ).fetchall()
    by_table: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in columns:
        by_table.setdefault(table, []).append((column, kind))
    for table, texts in by_table.items():
        names: dict[str, sql.Composable] = {"table": sql.Identifier(schema, table)}
        # One look at all columns of a row: nearly always there is nothing.
        whole = sql.SQL("concat_ws(' ', {}) ~* %(p)s").format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c, _ in texts)
        )
        one = sql.SQL("select from {table} where {whole} limit 1").format(**names, whole=whole)
        if connection.execute(one, {"p": pattern}).fetchone() is None:
            continue
        for column, kind in texts:
            names["column"] = sql.Identifier(column)
            names["kind"] = sql.SQL(kind)
            statement = (
                "update {table} set {column} = regexp_replace({column}::text, %(p)s, 'erased', "
                "'gi')::{kind} where {column}::text ~* %(p)s"
                if is_replaced
                else "select from {table} where {column}::text ~* %(p)s"
            )
            rows = connection.execute(sql.SQL(statement).format(**names), {"p": pattern}).rowcount
            if rows:
                found[f"{schema}.{table}.{column}"] = rows
    return found


def _sweep_states(connection: psycopg.Connection, pattern: str) -> dict[str, int]:
    """Remove saved states (bytes of JSON: filters of a link, of a chart) that `pattern` is in."""
    if connection.execute("select to_regclass('public.key_value')").fetchone() == (None,):
        return {}
    removed = connection.execute(
        "delete from public.key_value where encode(value, 'escape') ~* %s", [pattern]
    ).rowcount
    return {"key_value (removed)": removed} if removed else {}


def _raw_files(settings: Settings) -> Iterator[tuple[Path, Feed | None]]:
    """Files of sources that are kept: archived, refused, and waiting to be landed."""
    for root in (settings.archive, settings.inbox):
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if not folder.is_dir() or folder.name == PENDING:
                continue
            try:
                feed: Feed | None = registry.feed(settings, folder.name)
            except CallhouseError:
                feed = None
            inner = folder if root == settings.archive else folder / REFUSED
            for path in sorted(inner.rglob("*")) if inner.is_dir() else ():
                if path.is_file():
                    yield path, feed


def _content(path: Path) -> tuple[bytes, bool]:
    content = path.read_bytes()
    is_gzip = content.startswith(b"\x1f\x8b")
    return (gzip.decompress(content) if is_gzip else content), is_gzip


def _rows_of(feed: Feed, path: Path, who: Who) -> tuple[dict[int, bytes], Any]:
    """Hash of each row of the caller by line number, and the reader that has read them."""
    hashes: dict[int, bytes] = {}
    try:
        with feed.open(path) as file:
            rule = file.caller
            kind = "phone" if rule and rule.country else "id"
            if rule is None or not file.record.has_caller or kind != who.kind:
                return {}, None
            if kind == "id" and feed.name != who.source:
                return {}, None
            book = PhoneBook(rule.country) if rule.country else None
            for batch in file.batches(file.inspect()):
                rows = batch.rows.select("line_number", "row_hash", "caller").drop_nulls("caller")
                text = rows.get_column("caller")
                value = book.look_up(text).get_column("number") if book else text
                own = rows.filter((value == who.value).fill_null(False))
                hashes.update(own.select("line_number", "row_hash").iter_rows())
            return hashes, file
    except (RefusedError, OSError):
        return {}, None


def _put_in_place(folder: Path) -> None:
    """Let each file of `folder` take the place of the one that it was made from."""
    manifest = folder / "places.json"
    if not manifest.exists():
        return
    for name, place in json.loads(manifest.read_text(encoding="utf-8")).items():
        source, target = folder / name, Path(place)
        if not source.exists():
            continue
        # Beside the target, so that it is one step; with the old times, or it would look grown.
        beside = target.with_name(f".{target.name}{PENDING}")
        shutil.copy2(source, beside)
        beside.replace(target)
        source.unlink()
    shutil.rmtree(folder)


def unfinished(settings: Settings) -> int:
    """Erasures that were killed half way: their files in the archive are not all replaced yet."""
    root = settings.archive / PENDING
    return sum(1 for _ in root.iterdir()) if root.is_dir() else 0


def _finish_pending(settings: Settings, keys: Keys) -> None:
    """What a killed erasure left: finished where the database has forgotten, else undone."""
    root = settings.archive / PENDING
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if bytes.fromhex(folder.name) in keys.erased:
            _put_in_place(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _swept_files(settings: Settings) -> Iterator[Path]:
    """Logs, pages and reports in the home, and the server's log where it is on this machine."""
    folders = [
        folder
        for folder in sorted(settings.home.iterdir())
        if folder.is_dir() and folder.name not in KEPT_FOLDERS
    ]
    folders += [data / "log" for data in postgres.data_directories(settings)]
    for folder in folders:
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if file.is_file() and not file.is_symlink() and file.stat().st_size < SWEPT_BYTES:
                yield file


def _overwrite(file: Path, pattern: re.Pattern[bytes]) -> int:
    """Overwrite what is found with as many `#`: who appends or reads by offset is not disturbed."""
    try:
        with file.open("r+b") as handle:
            found = [match.span() for match in pattern.finditer(handle.read())]
            for start, end in found:
                handle.seek(start)
                handle.write(b"#" * (end - start))
    except OSError:
        return 0
    return len(found)


def _certify(settings: Settings, done: Certificate) -> None:
    """Keep the certificate, and enter it into the audit trail with its hash."""
    folder = settings.home / "certificates"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{done.erased_at[:19].replace(':', '')}-{done.pseudonym[:8]}"
    done.file = str(folder / f"{name}.json")
    told = {k: v for k, v in vars(done).items() if k != "file"}
    content = json.dumps(told, ensure_ascii=False, indent=2).encode()
    Path(done.file).write_bytes(content)
    (folder / f"{name}.txt").write_text(done.text, encoding="utf-8")
    digest = hashlib.sha256(content).hexdigest()
    try:
        journal.write(
            settings,
            "callhouse",
            {
                "action": "erase",
                "person": done.erased_by,
                "program": "callhouse",
                # Not in the statement, where digits are masked.
                "object_name": f"certificate {name}.json sha256:{digest}",
                "statement": done.reason,
                "row_count": sum(done.erased.values()),
                "outcome": "ok",
            },
        )
    except OSError as error:
        raise CallhouseError(
            f"the audit trail cannot be written ({error}): mend that and erase again"
        ) from None
