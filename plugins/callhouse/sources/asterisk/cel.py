"""Channel events: the CSV of cel_custom, in its sample mapping or one that a feed names.

Events are in order for each channel only; what they mean together is told in dbt.
"""

from __future__ import annotations

import polars as pl

from callhouse.sources.asterisk.channels import (
    MICRO,
    TOLERANCE,
    ChannelFile,
    Parties,
    Reasons,
    created_at,
    issue,
    issues,
    local_day,
    moment,
)
from callhouse.sources.asterisk.exchange import CEL_LAYOUTS, FURTHER

KNOWN = (
    "ANSWER", "APP_END", "APP_START", "ATTENDEDTRANSFER", "BLINDTRANSFER", "BRIDGE_ENTER",
    "BRIDGE_EXIT", "CHAN_END", "CHAN_START", "DTMF", "FORWARD", "HANGUP", "LINKEDID_END",
    "LOCAL_OPTIMIZE", "LOCAL_OPTIMIZE_BEGIN", "PARK_END", "PARK_START", "PICKUP", "STREAM_BEGIN",
    "STREAM_END", "USER_DEFINED",
)  # fmt: skip
EVENT_NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
# What hung up where no channel did: Hangup() and the end of the dialplan.
DIALPLAN = "dialplan/"


class ChannelEvents(ChannelFile):
    """One open file of channel events."""

    def _reasons(self) -> Reasons:
        return {
            "unreadable_event": (
                ~pl.col("event").str.contains(EVENT_NAME),
                "has no event where its name belongs: columns may be shifted",
            ),
            "no_channel": (
                pl.col("channel").is_null() & pl.col("call_id").is_null(),
                "names neither a channel nor a call: columns may be shifted",
            ),
        }

    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        names = {*CEL_LAYOUTS[-1], *FURTHER["cel"]} - {*frame.columns}
        frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in names)
        who = Parties(self.feed.numbering)
        channel, kind = pl.col("channame"), pl.col("eventtype")
        # The dialplan's own events: named by the user, or in a column of their own.
        is_own = pl.col("userdeftype").is_not_null() | pl.any_horizontal(
            (pl.col("eventenum", "eventtype") == "USER_DEFINED").fill_null(False)
        )
        own_name = pl.coalesce("userdeftype", "eventtype")
        name = pl.when(is_own & own_name.str.contains(EVENT_NAME)).then(own_name).otherwise(kind)
        at = moment("eventtime", self.feed.clock or self.feed.time_zone)
        created = created_at()
        is_second = (at.first < created - TOLERANCE * MICRO).fill_null(False)
        frame = frame.with_columns(
            pl.when(is_second).then(at.second).otherwise(at.first).alias("event_at"),
            # A name with a number in it is no name: what it may tell goes to quarantine.
            who.masked(name).alias("event"),
            pl.coalesce("linkedid", "uniqueid").alias("call_id"),
            who.by_context(
                pl.col("context"),
                pl.when(who.has_agent(channel)).then(pl.lit("internal"))
                .otherwise(pl.lit("inbound")),
            ).alias("direction"),
            pl.when(kind == "HANGUP").then(
                pl.col("extra").str.json_path_match("$.hangupsource")
            ).alias("source"),
            pl.when(kind == "HANGUP").then(
                pl.col("extra").str.json_path_match("$.hangupcause")
            ).cast(pl.Int64, strict=False).alias("hangup_cause"),
        )  # fmt: skip
        is_customers = pl.col("direction").is_in(["inbound", "callback"])
        dialled, source = pl.col("ciddnid"), pl.col("source")
        return frame.with_columns(
            pl.col("event_at").alias("began_at"),
            pl.col("uniqueid").alias("unique_id"),
            pl.col("linkedid").alias("linked_id"),
            pl.coalesce(
                pl.when(is_customers & who.is_hotline(number)).then(number)
                for number in (dialled, pl.col("exten"))
            ).alias("hotline_id"),
            pl.when(is_customers).then(
                who.customer(pl.col("cidnum"), pl.col("cidani"))
            ).alias("caller"),
            pl.lit(None, pl.String).alias("caller_region_code"),
            pl.lit(None, pl.String).alias("caller_carrier"),
            who.masked(pl.col("context")).alias("context"),
            who.masked_channel(channel).alias("channel"),
            who.agent(channel).alias("agent_id"),
            who.masked(pl.col("appname")).alias("application"),
            who.masked(pl.col("appdata")).alias("application_data"),
            who.kind(pl.col("appname")).alias("application_kind"),
            who.masked(pl.col("accountcode")).alias("account_code"),
            who.masked(pl.col("userfield")).alias("user_field"),
            who.masked(pl.col("exten")).alias("extension"),
            who.masked(pl.col("peer")).alias("peer"),
            who.masked(pl.col("extra")).alias("extra"),
            who.masked_channel(source.replace("", None)).alias("hangup_source"),
            pl.when(source.is_not_null() & (
                (source == "") | source.str.starts_with(DIALPLAN)
            )).then(pl.lit("system"))
            .when(who.has_agent(source)).then(pl.lit("agent"))
            .when(source.is_not_null()).then(pl.lit("customer"))
            .alias("hangup_party"),
            issues(
                pl.when(~pl.col("event").is_in(KNOWN) & ~is_own)
                .then(pl.concat_str(pl.lit("unknown_event:"), pl.col("event"))),
                issue(pl.col("is_garbled"), "unreadable:text"),
                issue(at.is_ambiguous & created.is_null(), "ambiguous_time:event_at"),
            ),
            local_day(self.feed),
        )  # fmt: skip
