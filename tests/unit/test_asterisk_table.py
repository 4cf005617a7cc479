"""Addresses of tables, and where and how they are reached. No server is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymysql
import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.sources import storage
from callhouse.sources.asterisk import table


class Asked:
    """The arguments of a connection to MySQL that nobody answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, options: Path) -> None:
        self.arguments: dict[str, Any] = {}
        self.options = options
        monkeypatch.setattr(pymysql, "connect", self.connect)

    def connect(self, **arguments: Any) -> None:
        self.arguments = arguments
        raise pymysql.OperationalError(2003, "nobody answers")

    def reach(self, address: str) -> dict[str, Any]:
        environment = {"CALLHOUSE_MYSQL_OPTION_FILE": str(self.options)}
        reader = table.Table(settings_module.load(environment), "Asia/Shanghai")
        with pytest.raises(CallhouseError, match=r"cannot be read \(nobody answers\)"):
            reader.files(address)
        return self.arguments


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    return Asked(monkeypatch, tmp_path / "options")


@pytest.mark.parametrize(
    ("address", "host", "port", "user", "database"),
    [
        ("mysql://r@pbx.example/asterisk/queue_log", "pbx.example", 3306, "r", "asterisk"),
        ("mariadb://r@pbx.example:3307/asterisk/queue_log/", "pbx.example", 3307, "r", "asterisk"),
        ("mysql://r@pbx/asterisk/queue_log/2026-11-02T10", "pbx", 3306, "r", "asterisk"),
        ("mysql://r%40x@[2001:db8::5]:3307/a%20b/queue_log", "2001:db8::5", 3307, "r@x", "a b"),
        ("mysql://r@10.1.2.3/asterisk-cdr/other.queue_log", "10.1.2.3", 3306, "r", "asterisk-cdr"),
        ("mysql://pbx/asterisk/queue_log", "pbx", 3306, None, "asterisk"),
    ],
)
def test_an_address_tells_where_a_table_is(
    asked: Asked, address: str, host: str, port: int, user: str | None, database: str
) -> None:
    assert storage.is_address(address) and storage.is_table(address)
    told = asked.reach(address)
    assert [told[name] for name in ("host", "port", "user", "database")] == [
        host, port, user, database,
    ]  # fmt: skip
    assert told["password"] == b""


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("mysql://r@pbx/asterisk", "no address of a table: write mysql://user@host/database/table"),
        ("mariadb://r@pbx/asterisk/queue log", "no address of a table: write mysql://"),
        ("mysql://r@pbx/asterisk/queue_log?ssl=0", "no address of a table: write mysql://"),
        ("mysql://r@pbx/asterisk/`queue_log`", "no address of a table: write mysql://"),
        ("postgres://r@pbx/asterisk", "no address of a table: write postgresql://"),
        ("mysql://r@pbx:many/asterisk/queue_log", "cannot be read .*Port"),
        ("mysql://r@[pbx/asterisk/queue_log", "cannot be read .*IPv6"),
        ("mysql://r:hidden@pbx/asterisk/queue_log", "may hold no password.*my.cnf"),
        ("mariadb://r:hid/den@pbx/asterisk/queue_log", "may hold no password.*my.cnf"),
        ("mysql://r:@pbx/asterisk/queue_log", "may hold no password"),
        ("postgresql://r:hidden@pbx/asterisk/queue_log", "may hold no password.*PGPASSFILE"),
    ],
)
def test_an_address_that_is_none_is_one_sentence(address: str, sentence: str) -> None:
    reader = table.Table(settings_module.load({}), "Asia/Shanghai")
    with pytest.raises(CallhouseError, match=sentence) as error:
        reader.files(address)
    assert "hid" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "user", "password"),
    [
        ("[client]\nuser=other\npassword = plain # of the reader\n", "other", "plain"),
        ('[client]\n  password="a\'#;=é " # quoted\n', None, "a'#;=é "),
        ("[client]\npassword=a\\\\b\\sc\\d\n", None, r"a\b c\d"),
        ("password=before\n[mysql]\npassword=of-mysql\n", None, ""),
        # The last one counts, and a server's own before the one of all.
        ("[client]\npassword=first\npassword=last\n", None, "last"),
        ("[client_pbx.example]\npassword=its\n[client]\npassword=all\nuser=u\n", "u", "its"),
        ("[client_other]\npassword=its\n[client]\npassword=all\n", None, "all"),
        ("!includedir /etc/my\n; old\n[client]\nskip-ssl\nhost=elsewhere\n", None, ""),
    ],
)
def test_a_password_is_found_where_mysql_has_it(
    asked: Asked, options: str, user: str | None, password: str
) -> None:
    asked.options.write_text(options)
    told = asked.reach("mysql://pbx.example/asterisk/queue_log")
    assert (told["user"], told["password"].decode()) == (user, password)
    assert told["host"] == "pbx.example"
    assert asked.reach("mysql://r@pbx.example/asterisk/queue_log")["user"] == "r"


def test_an_option_file_that_cannot_be_read_is_one_sentence(asked: Asked) -> None:
    asked.options.mkdir()
    environment = {"CALLHOUSE_MYSQL_OPTION_FILE": str(asked.options)}
    reader = table.Table(settings_module.load(environment), "Asia/Shanghai")
    with pytest.raises(CallhouseError, match=r"option file .* cannot be read .*permissions"):
        reader.files("mysql://r@pbx/asterisk/queue_log")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_nothing_is_encrypted_on_the_way_to_itself(asked: Asked, host: str) -> None:
    assert asked.reach(f"mysql://r@{host}/asterisk/queue_log")["ssl_disabled"] is True


def test_encryption_is_taken_where_offered_and_demanded_where_it_can_be_checked(
    asked: Asked,
) -> None:
    address = "mysql://r@pbx/asterisk/queue_log"
    told = {name: value for name, value in asked.reach(address).items() if "ssl" in name}
    assert told == {"ssl_disabled": False}
    asked.options.write_text("[client]\nssl_ca=/ca.pem\n")
    told = asked.reach(address)
    assert "ssl_disabled" not in told
    assert (told["ssl_ca"], told["ssl_verify_cert"]) == ("/ca.pem", True)
    assert told["ssl_verify_identity"] is False
    asked.options.write_text("[client]\nssl-ca=/ca.pem\nssl-verify-server-cert\nssl-cert=c\n")
    told = asked.reach("mysql://r@localhost/asterisk/queue_log")
    assert (told["ssl_cert"], told["ssl_verify_identity"]) == ("c", True)


@pytest.mark.parametrize(
    ("hour", "limits"),
    [
        ("2026-11-02T10", ("2026-11-02", "2026-11-03")),
        ("2026-12-31", ("2026-12-31", "2027-01-01")),
        ("179358", ("1793580000", "1793590000")),
        # Text would order 1000000000 before 999990000.
        ("99999", ()),
        ("0000-00-00T00", ()),
        ("9999-12-31T23", ()),
        ("unreadable", ()),
    ],
)
def test_an_index_can_find_an_hour(hour: str, limits: tuple[str, ...]) -> None:
    assert table._limits(hour) == limits
