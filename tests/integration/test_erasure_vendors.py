"""A caller is erased from what every vendor sent, and does not come back with it."""

from __future__ import annotations

import gzip
from pathlib import Path

# A server of its own: erased callers and archives of other tests would be in what is looked at.
from tests.conftest import published_contents
from tests.integration.test_free_text import delivered, empty, everything, ready, world

from callhouse import landing, transform, warehouse
from callhouse.landing.callers import Cipher, hold_keys
from callhouse.security import erasure
from callhouse.settings import Settings
from callhouse.transform import dbt

__all__ = ["empty", "ready", "world"]  # fixtures


def test_an_erased_caller_is_gone_from_what_every_vendor_sent(
    world: Settings, tmp_path: Path
) -> None:
    files = delivered(world, tmp_path)
    for path, feed in files.items():
        kept = world.archive / feed / path.relative_to(tmp_path).as_posix().replace("/", "-")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())
    with warehouse.connect(world) as connection:
        cipher = Cipher(world, hold_keys(connection).encryption)
        callers = connection.execute(
            "select distinct on (c.source) c.source, k.content from marts.fct_calls as c"
            " inner join pii.callers as k using (caller_token) where k.masked like '1%%'"
            " group by c.source, k.content order by c.source, count(*) desc, k.content"
        ).fetchall()
    numbers = {source: cipher.decrypt(content).decode() for source, content in callers}
    assert set(numbers) == {"amazon_connect_contacts", "asterisk_queue_log", "sample_hotline"}
    before = published_contents(world)
    with_callers = ("fct_calls", "fct_call_followups")
    for number in set(numbers.values()):
        done = erasure.erase(world, erasure.by_number(number), "operator", "asks", is_dry=False)
        national = number.removeprefix("+86")
        touched = {place.split("/")[1] for place in done.erased if place.startswith("archive/")}
        assert touched, done.erased
        assert national not in everything(world)
        for kept in world.archive.rglob("*"):
            assert kept.is_dir() or national.encode() not in kept.read_bytes(), kept
    # What was delivered comes once more, each file with a line more.
    for path, feed in files.items():
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        path.unlink()
        again = path.with_name(path.name.removesuffix(".gz"))
        again.write_bytes(content + b"\n")
        [result] = landing.land(world, feed, [again])
        assert (result.status, result.staged) == ("landed", 0), (path, result)
    assert transform.drain(world, dbt.quiet).problems == ()
    after = published_contents(world)
    for relation, (count, checksum) in before.items():
        assert after[relation][0] == count, relation
        assert relation in with_callers or after[relation][1] == checksum, relation
    with warehouse.connect(world) as connection:
        cipher = Cipher(world, hold_keys(connection).encryption)
        known = connection.execute("select content from pii.callers").fetchall()
    assert not {cipher.decrypt(content).decode() for (content,) in known} & set(numbers.values())
