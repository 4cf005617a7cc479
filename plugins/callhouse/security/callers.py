"""Callers' numbers: masks, grants to unmask, and the keys of tokens and encryption."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.security import check_person, login_password, people
from callhouse.security.trail import journal
from callhouse.settings import Settings

if TYPE_CHECKING:
    from callhouse.landing.callers import Callers, Cipher, Keys

ROWS_AT_ONCE = 20_000
LONGEST_GRANT = timedelta(hours=24)
DURATION = re.compile(r"([1-9]\d{0,3})(m|h)")


def parse_token(text: str) -> uuid.UUID:
    """A caller's token as readers see it; CallhouseError does not repeat what it is not."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise CallhouseError(
            "that is no token: write caller_token as bi.fct_calls shows it"
        ) from None


def parse_duration(text: str) -> timedelta:
    """`30m` or `2h`, at most LONGEST_GRANT."""
    found = DURATION.fullmatch(text)
    minutes = int(found[1]) * (60 if found[2] == "h" else 1) if found else 0
    length = timedelta(minutes=minutes)
    if not length or length > LONGEST_GRANT:
        raise CallhouseError(f"{text!r} is no time up to 24 hours: write 30m or 2h")
    return length


def fill_masks(settings: Settings) -> int:
    """Give a mask to callers that were landed before masks were kept; returns how many."""
    filled = 0
    with warehouse.connect(settings) as connection:
        while rows := connection.execute(
            "select caller_token, kind, content from pii.callers where masked is null limit %s",
            [ROWS_AT_ONCE],
        ).fetchall():
            from callhouse.landing.callers import Cipher, hold_keys, masks

            decrypt = Cipher(settings, hold_keys(connection).encryption).decrypt
            shown = masks([(kind, decrypt(content).decode()) for _, kind, content in rows])
            connection.execute(
                "update pii.callers as c set masked = f.masked "
                "from unnest(%s::uuid[], %s::text[]) as f (token, masked) "
                "where c.caller_token = f.token",
                [[token for token, _, _ in rows], shown],
            )
            filled += len(rows)
    return filled


# ---------------------------------------------------------------- unmask
def grant_unmask(
    settings: Settings, name: str, length: timedelta, by: str, reason: str,
    token: uuid.UUID | None = None,
) -> datetime:  # fmt: skip
    """Let a person have callers' numbers shown for `length`; returns when that ends."""
    if not reason.strip():
        raise CallhouseError("say why with --reason: it is kept with the grant")
    with warehouse.connect(settings) as connection:
        person = people.find(connection, check_person(name))
        if people.LEVELS[person.level].mask_level != "masked":
            raise CallhouseError(
                f"{name} is {person.level}, who sees no masks: such a person sees no number either"
            )
        row = warehouse.one(
            connection,
            "insert into sec.unmask_grant (person, caller_token, valid, granted_by, reason) "
            "values (%s, %s, tstzrange(now(), now() + %s), %s, %s) returning upper(valid)",
            [name, token, length, by, reason],
        )
    ends: datetime = row[0]
    return ends


def end_unmask(settings: Settings, name: str, by: str, reason: str) -> int:
    """End every grant of a person that holds now; returns how many."""
    if not reason.strip():
        raise CallhouseError("say why with --reason: it is kept with the grant")
    with warehouse.connect(settings) as connection:
        return connection.execute(
            "update sec.unmask_grant set ended_by = %s, end_reason = %s, "
            "valid = tstzrange(lower(valid), greatest(clock_timestamp(), "
            "lower(valid) + interval '1 microsecond')) "
            "where person = %s and valid @> clock_timestamp()",
            [by, reason, name],
        ).rowcount


def reveal(settings: Settings, token: uuid.UUID, name: str, by: str, reason: str) -> str:
    """The number or id behind a token, for a person who holds a grant and sees a mask of it.

    Entered into the audit trail before it is returned; so is each refusal (a CallhouseError).
    """
    from callhouse.landing.callers import Cipher, hold_keys
    from callhouse.security.trail.entries import masked

    if not reason.strip():
        raise CallhouseError("say why with --reason: it is kept in the audit trail")

    def note(outcome: str, detail: str) -> None:
        journal.write(
            settings,
            "callhouse",
            {
                "action": "reveal",
                "person": name,
                "program": "callhouse",
                "object_name": f"caller {str(token)[:8]}",
                "statement": masked(f"{detail}; asked by {by}: {reason}"),
                "outcome": outcome,
            },
        )

    content: bytes | None = None
    refusal = _hindrance(settings, token, name)
    if refusal is None:
        with warehouse.connect(settings) as connection:
            keys = hold_keys(connection)
            row = connection.execute(
                "select content from pii.callers where caller_token = %s", [token]
            ).fetchone()
        content = row[0] if row else None
        if content is None:
            refusal = "the caller's number is no longer kept"
    try:
        if refusal or content is None:
            note("refused", refusal or "")
            raise CallhouseError(f"not shown: {refusal}")
        number = decrypted(Cipher(settings, keys.encryption), content).decode()
        note("ok", "shown")
    except OSError as error:
        raise CallhouseError(f"the audit trail cannot be written ({error}): mend that") from None
    return number


def _hindrance(settings: Settings, token: uuid.UUID, name: str) -> str | None:
    """Why `name` may not have the number shown now; None where nothing speaks against it."""
    with warehouse.connect(settings) as connection:
        held = connection.execute(
            "select from sec.unmask_grant as g inner join sec.people as p on g.person = p.person "
            "where g.person = %s and p.closed_at is null and g.valid @> statement_timestamp() "
            "and coalesce(g.caller_token, %s) = %s limit 1",
            [name, token, token],
        ).fetchone()
    if held is None:
        return f"{name} holds no grant for it now"
    try:
        password = login_password(settings, check_person(name))
        with warehouse.connect_as(settings, name, password) as own:
            seen = own.execute(
                "select bool_or(caller_masked is not null) from bi.fct_calls "
                "where caller_token = %s",
                [token],
            ).fetchone()
    except CallhouseError:
        return f"{name} has no login"
    if seen is None or seen[0] is None:
        return f"{name} sees no call of it"
    return None if seen[0] else f"{name} sees no mask of it"


def decrypted(cipher: Cipher, content: bytes) -> bytes:
    """What was encrypted; CallhouseError where it was with another key."""
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(content)
    except InvalidTag:
        raise CallhouseError(
            "what is kept cannot be decrypted: the secret caller_encryption_key of the version in "
            "use is not the one it was kept with"
        ) from None


# ---------------------------------------------------------------- rotation
@dataclass(frozen=True)
class Rotation:
    """What a rotation did: the versions now in use and rows by table."""

    token_version: int
    encryption_version: int
    moved: dict[str, int]  # rows by table, partitions summed up


def rotate(settings: Settings, by: str, *, tokens: bool, encryption: bool) -> Rotation:
    """Take new keys into use, for everything that is kept, in one transaction.

    Landing and building wait meanwhile; who reads sees the old state until the new one is whole.
    """
    from callhouse import transform
    from callhouse.landing import cold
    from callhouse.landing.callers import Keys

    with transform.standstill(settings), warehouse.connect(settings) as connection:
        before = exclude_landing(connection)
        if tokens:
            cold.hold(connection)
            cold.thaw(settings, connection)
        new = Keys(before.token + tokens, before.encryption + encryption)
        for purpose, is_wanted in (("token", tokens), ("encryption", encryption)):
            if is_wanted:
                _make_secret(settings, purpose, getattr(new, purpose))
        moved: dict[str, int] = {}
        if encryption:
            moved |= _encrypt_again(settings, connection, before, new)
        if tokens:
            moved |= _move_tokens(settings, connection, before, new)
        for purpose, is_wanted in (("token", tokens), ("encryption", encryption)):
            if is_wanted:
                connection.execute(
                    "insert into pii.key_versions (purpose, version, rotated_by) "
                    "values (%s, %s, %s)",
                    [purpose, getattr(new, purpose), by],
                )
    return Rotation(new.token, new.encryption, moved)


def exclude_landing(connection: psycopg.Connection) -> Keys:
    """Wait for what is being landed, and let nothing begin before the transaction ends."""
    from callhouse.landing.callers import hold_keys

    connection.execute("set local lock_timeout = '10min'")
    try:
        connection.execute("select pg_advisory_xact_lock(hashtextextended('caller keys', 0))")
    except psycopg.errors.LockNotAvailable:
        raise CallhouseError(
            "a file has been landing for ten minutes: try again when it is through"
        ) from None
    return hold_keys(connection)


def token_tables(connection: psycopg.Connection) -> list[tuple[str, bool]]:
    """Tables that hold tokens, and whether they hold a key version; partitioned ones as a whole.

    Asked of the catalogue, so that a table to come is not forgotten.
    """
    return connection.execute(
        "select c.oid::regclass::text, exists (select from pg_attribute as v "
        "where v.attrelid = c.oid and v.attname = 'caller_key_version' and not v.attisdropped) "
        "from pg_class as c inner join pg_attribute as a on c.oid = a.attrelid "
        "inner join pg_namespace as n on c.relnamespace = n.oid "
        "where a.attname like '%%caller_token%%' and a.atttypid = 'uuid'::regtype "
        "and not a.attisdropped and c.relkind in ('r', 'p') and not c.relispartition "
        "and n.nspname !~ '^pg_' order by 1"
    ).fetchall()


def abandon_builds(connection: psycopg.Connection) -> None:
    """Open builds hold rows of before: their days are built again."""
    connection.execute(
        "update ops.builds set status = 'abandoned' where status in ('claimed', 'built', 'audited')"
    )
    connection.execute("update ops.dirty_marks set build_id = null where build_id is not null")
    connection.execute("delete from ops.built_candidates")


def replace_tokens(connection: psycopg.Connection, version: int) -> dict[str, int]:
    """Move every row from `old` to `new` of the temporary table moved_callers; rows by table."""
    moved = {}
    for table, has_version in token_tables(connection):
        key_version = {"pii.callers": "key_version"}.get(table, "caller_key_version")
        assignment = sql.SQL(", {} = {}").format(sql.Identifier(key_version), sql.Literal(version))
        moved[table] = connection.execute(
            sql.SQL(
                "update {} as t set caller_token = m.new{} from moved_callers as m "
                "where t.caller_token = m.old"
            ).format(
                sql.Identifier(*table.split(".")),
                assignment if has_version or table == "pii.callers" else sql.SQL(""),
            )
        ).rowcount
    return {table: rows for table, rows in moved.items() if rows}


def _make_secret(settings: Settings, purpose: str, version: int) -> None:
    from callhouse.landing.callers import secret_name

    name, before = secret_name(purpose, version), secret_name(purpose, version - 1)
    if settings.given_secret(before) and not settings.given_secret(name):
        raise CallhouseError(
            f"{before} was handed over, so {name} has to be as well: set "
            f"CALLHOUSE_SECRET_{name.upper()} or CALLHOUSE_SECRET_{name.upper()}_FILE everywhere"
        )
    settings.secret(name)


def _encrypt_again(
    settings: Settings, connection: psycopg.Connection, before: Keys, new: Keys
) -> dict[str, int]:
    from callhouse.landing.callers import Cipher

    old, cipher = Cipher(settings, before.encryption), Cipher(settings, new.encryption)
    moved = {}
    for table, key in (("pii.callers", ("caller_token",)),
                       ("ops.quarantine", ("unit_id", "line_number"))):  # fmt: skip
        names = {
            "table": sql.Identifier(*table.split(".")),
            "key": sql.SQL(", ").join(map(sql.Identifier, key)),
            "same": sql.SQL(" and ").join(
                sql.SQL("t.{0} = n.{0}").format(sql.Identifier(column)) for column in key
            ),
        }
        # Beside the rows: an update would move those that the cursor has still to come to.
        connection.execute(
            sql.SQL(
                "create temporary table encrypted_again on commit drop as "
                "select {key}, content from {table} with no data"
            ).format(**names)
        )
        with connection.cursor("kept") as rows:
            # Retention empties content, and nothing else does.
            rows.execute(
                sql.SQL("select {key}, content from {table} where content <> ''").format(**names)
            )
            while found := rows.fetchmany(ROWS_AT_ONCE):
                with connection.cursor() as cursor, cursor.copy(
                    b"copy encrypted_again from stdin"
                ) as stream:  # fmt: skip
                    for *place, content in found:
                        stream.write_row((*place, cipher.encrypt(decrypted(old, content))))
        moved[table] = connection.execute(
            sql.SQL(
                "update {table} as t set content = n.content from encrypted_again as n where {same}"
            ).format(**names)
        ).rowcount
        connection.execute("drop table encrypted_again")
    return moved


def _move_tokens(
    settings: Settings, connection: psycopg.Connection, before: Keys, new: Keys
) -> dict[str, int]:
    """Every token becomes the one of the new key; one that nobody knows stops all of it.

    Of a caller whose number retention removed only the token is left: it becomes a token that no
    number leads to, the same in every table. Who calls again after that is somebody new.
    """
    from callhouse.landing.callers import Callers, Cipher

    # Ids belong to a source, which only the token tells.
    sources = [
        source for (source,) in connection.execute("select source from ops.sources order by 1")
    ]
    makers = [
        tuple(Callers(settings, source, None, keys) for keys in (before, new))
        for source in sources or [""]
    ]
    cipher = Cipher(settings, new.encryption)
    connection.execute("create temporary table pseudonyms (pseudonym uuid) on commit drop")
    connection.execute("insert into pseudonyms select pseudonym from pii.erased_callers")
    for table, has_version in token_tables(connection):  # and those that came marked in a file
        if has_version:
            connection.execute(
                sql.SQL(
                    "insert into pseudonyms select distinct caller_token from {} "
                    "where caller_key_version = 0"
                ).format(sql.Identifier(*table.split(".")))
            )
    connection.execute("create temporary table moved_callers (old uuid, new uuid) on commit drop")
    with connection.cursor("kept") as rows:
        rows.execute("select caller_token, kind, content from pii.callers")
        while found := rows.fetchmany(ROWS_AT_ONCE):
            with connection.cursor() as cursor, cursor.copy(
                b"copy moved_callers from stdin"
            ) as stream:  # fmt: skip
                for token, kind, content in found:
                    value = decrypted(cipher, content).decode()
                    of_source = next(
                        (m for m in makers if m[0].token(kind, value) == token.bytes), None
                    )
                    if of_source is None:
                        raise CallhouseError(
                            "a caller's token is not of the secret caller_key of the version in "
                            "use: nothing was changed; restore the secret"
                        )
                    stream.write_row((token, uuid.UUID(bytes=of_source[1].token(kind, value))))
    _move_forgotten(connection, makers[0][1])
    connection.execute("create unique index on moved_callers (old)")
    connection.execute("create unique index on moved_callers (new)")
    connection.execute("analyze moved_callers")
    abandon_builds(connection)
    moved = replace_tokens(connection, new.token)
    for table, _ in token_tables(connection):
        lost = connection.execute(
            sql.SQL(
                "select from {} as t where t.caller_token is not null and not exists "
                "(select from moved_callers as m where m.new = t.caller_token) and not exists "
                "(select from pseudonyms as e where e.pseudonym = t.caller_token) limit 1"
            ).format(sql.Identifier(*table.split(".")))
        ).fetchone()
        if lost is not None:
            raise CallhouseError(
                f"{table} has a token of which no caller is kept, so it cannot be moved: "
                "nothing was changed; build its days again, or restore pii.callers"
            )
    return moved


def _move_forgotten(connection: psycopg.Connection, maker: Callers) -> None:
    """Adds the tokens that retention left without a number to moved_callers."""
    is_removed = connection.execute(
        "select from ops.retention_runs where class = 'callers' and removed > 0 limit 1"
    ).fetchone()
    if is_removed is None:
        return
    connection.execute("create temporary table forgotten (old uuid) on commit drop")
    for table, _ in token_tables(connection):
        connection.execute(
            sql.SQL("insert into forgotten select distinct caller_token from {}").format(
                sql.Identifier(*table.split("."))
            )
        )
    left = connection.execute(
        "select distinct old from forgotten where old is not null"
        " and not exists (select from moved_callers as m where m.old = forgotten.old)"
        " and not exists (select from pseudonyms as e where e.pseudonym = forgotten.old)"
    ).fetchall()
    with connection.cursor() as cursor, cursor.copy(b"copy moved_callers from stdin") as stream:
        for (token,) in left:
            stream.write_row((token, uuid.UUID(bytes=maker.token("id", f"forgotten {token.hex}"))))
