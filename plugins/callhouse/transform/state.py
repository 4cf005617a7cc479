"""What the data is like now: freshness, and how many days are in which state."""

from __future__ import annotations

from typing import Any

from callhouse import warehouse
from callhouse.settings import Settings

# By lane; follow-ups change with every later call, which restates nothing.
STATUSES = {
    "facts": ("complete", "restated", "provisional", "held"),
    "followups": ("complete", "provisional", "held"),
}


def data_state(settings: Settings) -> dict[str, Any]:
    """`freshness`: per source its newest day, landing and counts; then days by status, by lane."""
    with warehouse.connect(settings) as connection:
        sources = connection.execute(
            "select l.source, s.time_zone, l.newest_day, l.landed_at, l.read_rows, l.staged_rows,"
            " l.open_rows + l.discarded_rows, l.open_rows, l.discarded_rows, l.duplicate_rows,"
            " l.refused_files, l.replayed_rows from ops.source_ledger as l"
            " inner join ops.sources as s on l.source = s.source order by l.source"
        ).fetchall()
        days = connection.execute(
            "select lane, status, count(*) from ops.lane_status group by lane, status"
        ).fetchall()
        held = connection.execute(
            "select lane, business_day, reason from ops.held_days order by business_day"
        ).fetchall()
        newest = connection.execute(
            "select max(published_at) from ops.published_days where lane = 'facts'"
        ).fetchone()
    names = ("source", "time_zone", "newest_day", "landed_at", "read", "staged", "quarantined",
             "open_in_quarantine", "discarded", "duplicates", "refused_files",
             "replayed")  # fmt: skip

    def lane(wanted: str) -> dict[str, Any]:
        counts = {status: count for name, status, count in days if name == wanted}
        return {
            **{status: counts.get(status, 0) for status in STATUSES[wanted]},
            "held_days": {day.isoformat(): reason for name, day, reason in held if name == wanted},
        }

    return {
        "freshness": [dict(zip(names, row, strict=True)) for row in sources],
        "data_status": {"as_of": newest[0] if newest else None, **lane("facts")},
        "followup_status": lane("followups"),
    }


def sentences(data: dict[str, Any]) -> list[str]:
    """`data_state` for people."""
    now = data["data_status"]
    as_of = now["as_of"].isoformat(timespec="seconds") if now["as_of"] else "nothing yet"
    later = data["followup_status"]
    lines = [f"data as of: {as_of}", _counts("days", now), _counts("follow-ups", later)]
    lines += [f"held {day}: {reason}" for day, reason in now["held_days"].items()]
    lines += [f"held follow-ups {day}: {reason}" for day, reason in later["held_days"].items()]
    lines += [
        f"{s['source']}: newest day {s['newest_day'] or '-'}, read {s['read']}, "
        f"staged {s['staged']}, quarantined {s['quarantined']} "
        f"({s['open_in_quarantine']} open), duplicates {s['duplicates']}, "
        f"refused files {s['refused_files']}"
        + (f", {s['replayed']} replayed" if s["replayed"] else "")
        for s in data["freshness"]
    ]
    return lines


def _counts(what: str, lane: dict[str, Any]) -> str:
    statuses = [status for status in STATUSES["facts"] if status in lane]
    return f"{what}: " + ", ".join(f"{lane[status]} {status}" for status in statuses)
