"""Transfers of each day: by the simulator's truth, and as the balance counts them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import psycopg

NAME = "transfers out = transfers in + left + unknown"


def truth(
    folder: Path, *, hidden: Iterable[str] = (), outside_queues: bool = True
) -> dict[str, tuple[int, int]]:
    """By day: legs that ended by a transfer, and those of them that another leg follows.

    `hidden` are outcomes of visits that the records do not have; `outside_queues`: whether they
    have conversations outside of queues.
    """
    days, seen = {}, defaultdict(set)
    for file in ("visits.csv", "connections.csv"):
        for row in _rows(folder / file):
            if row.get("outcome", "") not in hidden and (outside_queues or row["queue_id"]):
                seen[row["call_id"]].add(int(row["leg_number"]))
    out, followed = Counter[str](), Counter[str]()
    for row in _rows(folder / "connections.csv"):
        if row["transfer_type"]:
            day = row["business_day"]
            out[day] += 1
            followed[day] += max(seen[row["call_id"]]) > int(row["leg_number"])
            days[day] = (out[day], followed[day])
    return days


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def counted(connection: psycopg.Connection, source: str) -> dict[str, tuple[int, ...]]:
    """By day: out, in, left, unknown, of what is published."""
    return {
        str(day): tuple(counts)
        for day, *counts in connection.execute(
            "select business_day, transfers_out, transfers_in, transfers_left, transfers_unknown"
            " from ops.transfers('marts.fct_queue_visits', 'marts.fct_agent_connections',"
            " 'marts.fct_calls', array(select distinct business_day from marts.fct_calls))"
            " where source = %s",
            [source],
        ).fetchall()
    }


def balances(connection: psycopg.Connection, source: str) -> dict[str, tuple[int, bool]]:
    """By day: transfers out as readers are told, and whether they are balanced."""
    return {
        str(day): (out, is_balanced)
        for day, out, is_balanced in connection.execute(
            "select business_day, left_count, is_balanced from bi.fct_day_balances"
            " where source = %s and balance = %s",
            [source, NAME],
        ).fetchall()
    }
