"""Call detail records: Master.csv of cdr_csv, and layouts of cdr_custom that a feed names.

A record is one way of a channel: alone in the dialplan, dialling somebody (one record per phone
that rang), or in a bridge with somebody. What the records of a call mean together is told in dbt.
"""

from __future__ import annotations

import polars as pl

from callhouse.sources.asterisk.channels import (
    MICRO,
    NUMBER,
    TOLERANCE,
    ChannelFile,
    Parties,
    Reasons,
    created_at,
    issue,
    issues,
    local_day,
    moment,
    seconds,
)
from callhouse.sources.asterisk.exchange import CDR_LAYOUTS

DISPOSITIONS = ("NO ANSWER", "CONGESTION", "FAILED", "BUSY", "ANSWERED")
SIGNED = r"^-?\d+(\.\d+)?$"
CALLER_ID = r"<([^<>]*)>\s*$"


class CallDetailRecords(ChannelFile):
    """One open Master.csv."""

    def _reasons(self) -> Reasons:
        return {
            "no_call_id": (
                pl.col("call_id").is_null(),
                "names no call: set newcdrcolumns=yes and loguniqueid=yes in cdr.conf",
            ),
            "unreadable_time": (
                pl.col("event_at").is_null() | pl.col("has_bad_time"),
                "has a start, an answer or an end that is no time: check the columns, and 'times'",
            ),
            "unreadable_number": (
                pl.col("has_bad_number"),
                "has no whole number as duration, billsec or sequence: columns may be shifted",
            ),
        }

    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        names = {*CDR_LAYOUTS[-1]} - {*frame.columns}
        frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in names)
        who = Parties(self.feed.numbering)
        channel, peer = pl.col("channel"), pl.col("dstchannel")
        source, destination = pl.col("src"), pl.col("dst")
        shown = pl.col("clid").str.extract(CALLER_ID)
        reaches_out = (
            pl.when(peer.is_not_null()).then(~who.has_agent(peer))
            .otherwise(who.customer(destination).str.len_chars() >= 6)
        )  # fmt: skip
        frame = self._timed(frame).with_columns(
            pl.coalesce("linkedid", "uniqueid").alias("call_id"),
            who.by_context(
                pl.col("dcontext"),
                pl.when(~who.has_agent(channel)).then(pl.lit("inbound"))
                .when(reaches_out.fill_null(False)).then(pl.lit("outbound"))
                .otherwise(pl.lit("internal")),
            ).alias("direction"),
        )  # fmt: skip
        is_inbound = pl.col("direction") == "inbound"
        goes_out = pl.col("direction").is_in(["callback", "outbound"])
        code = pl.col("disposition").str.to_uppercase().str.replace_all("_", " ")
        is_known = code.is_in(DISPOSITIONS)
        spent = (pl.col("ended_at") - pl.col("event_at")) / MICRO
        spoken = (pl.col("ended_at") - pl.col("answered_at")) / MICRO
        return frame.with_columns(
            pl.col("uniqueid").alias("unique_id"),
            pl.col("linkedid").alias("linked_id"),
            who.masked(pl.col("dcontext")).alias("context"),
            who.masked_channel(channel).alias("channel"),
            who.masked_channel(peer).alias("peer_channel"),
            pl.coalesce(
                pl.when(is_inbound).then(who.agent(peer)),
                pl.when(~is_inbound).then(who.agent(channel)),
            ).alias("agent_id"),
            who.masked(pl.col("lastapp")).alias("application"),
            who.masked(pl.col("lastdata")).alias("application_data"),
            who.kind(pl.col("lastapp")).alias("application_kind"),
            who.masked(pl.col("accountcode")).alias("account_code"),
            who.masked(pl.col("peeraccount")).alias("peer_account"),
            who.masked(pl.col("userfield")).alias("user_field"),
            who.masked(destination).alias("destination"),
            pl.coalesce(
                pl.when(is_inbound & who.is_hotline(destination)).then(destination),
                pl.when(goes_out & who.is_hotline(source)).then(source),
            ).alias("hotline_id"),
            pl.coalesce(
                pl.when(is_inbound).then(who.customer(source, shown)),
                pl.when(goes_out).then(who.customer(destination)),
            ).alias("caller"),
            pl.lit(None, pl.String).alias("caller_region_code"),
            pl.lit(None, pl.String).alias("caller_carrier"),
            pl.when(is_known).then(code).alias("disposition"),
            issues(
                pl.when(~is_known).then(pl.lit("unknown_code:disposition")),
                issue(pl.col("is_garbled"), "unreadable:text"),
                issue(pl.col("is_ambiguous"), "ambiguous_time:event_at"),
                issue(pl.col("duration").str.starts_with("-"), "negative:duration_seconds"),
                issue(pl.col("billsec").str.starts_with("-"), "negative:billed_seconds"),
                issue(
                    (pl.col("duration_seconds") - spent).abs() > TOLERANCE,
                    "disagrees:duration_seconds",
                ),
                issue(
                    (pl.col("billed_seconds") - spoken).abs() > TOLERANCE,
                    "disagrees:billed_seconds",
                ),
            ),
            local_day(self.feed),
        )

    def _timed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Start, answer and end; a local time that came twice is told by channel and durations."""
        zone = self.feed.clock or self.feed.time_zone
        start, answer, end = (moment(name, zone) for name in ("start", "answer", "end"))
        created = created_at()
        # A record begins when its channel was made, or later: the second of two times is meant
        # where the first was before the channel.
        is_second = (start.first < created - TOLERANCE * MICRO).fill_null(False)
        numbers = ("duration", "billsec")
        frame = frame.with_columns(
            pl.when(is_second).then(start.second).otherwise(start.first).alias("event_at"),
            (start.is_ambiguous & created.is_null()).alias("is_ambiguous"),
            seconds("duration").alias("duration_seconds"),
            seconds("billsec").alias("billed_seconds"),
            pl.when(pl.col("sequence").str.contains(NUMBER)).then(pl.col("sequence"))
            .cast(pl.Int64, strict=False).alias("sequence_number"),
            pl.any_horizontal(
                (pl.col(name).is_not_null() & moment(name, zone).first.is_null())
                for name in ("answer", "end")
            ).alias("has_bad_time"),
            pl.any_horizontal(
                *(~pl.col(name).str.contains(SIGNED).fill_null(True) for name in numbers),
                ~pl.col("sequence").str.contains(NUMBER).fill_null(True),
            ).alias("has_bad_number"),
        )  # fmt: skip
        duration = (pl.col("duration_seconds").fill_null(0) * MICRO).cast(pl.Int64)
        billed = (pl.col("billed_seconds") * MICRO).cast(pl.Int64)
        frame = frame.with_columns(end.nearest(pl.col("event_at") + duration).alias("ended_at"))
        frame = frame.with_columns(
            answer.nearest(
                pl.coalesce(pl.col("ended_at") - billed, pl.col("event_at"))
            ).alias("answered_at")
        )  # fmt: skip
        return frame.with_columns(
            pl.col("event_at").alias("began_at"),
            pl.col("sequence_number").alias("sequence"),
        )
