"""What files of delimited feeds may hold: their fields and staging tables."""

from __future__ import annotations

from callhouse.sources.contract import (
    ABANDON_STAGES,
    CHANNELS,
    OUTCOMES,
    TRANSFER_TYPES,
    Field,
    Record,
)

# In the order in which they happen.
LEG_TIMES = (
    "arrived_at", "ivr_entered_at", "ivr_left_at", "queue_entered_at", "queue_left_at",
    "answered_at", "released_at", "ended_at",
)  # fmt: skip
# Reported durations and the row times that bound them (METRICS.md, ruling 1).
LEG_DURATIONS = {
    "ivr_seconds": ("ivr_entered_at", "ivr_left_at"),
    "wait_seconds": ("queue_entered_at", "queue_left_at"),
    "talk_seconds": ("answered_at", "released_at"),
}
SERVICE = ("talk_seconds", "hold_seconds", "acw_seconds")

LEGS = Record(
    "legs",
    "staging.delimited_legs",
    key=("call_id", "leg_number"),
    day="business_day",
    partitioned=True,
    fields=(
        Field("call_id", required=True),
        Field("leg_number", "integer"),
        Field("caller", "caller"),
        Field("caller_region_code", member="region"),
        Field("caller_carrier"),
        Field("hotline_id", member="hotline"),
        Field("channel", "code", codes=CHANNELS, member="channel"),
        Field("business_type", member="business_type"),
        Field("queue_id", member="queue"),
        Field("agent_id", member="agent"),
        Field("priority"),
        Field("outcome", "code", required=True, codes=OUTCOMES),
        Field("abandon_stage", "code", codes=ABANDON_STAGES),
        Field("transfer_type", "code", codes=TRANSFER_TYPES),
        Field("hangup_party", "code", codes=("customer", "agent", "system")),
        *(Field(name, "seconds") for name in ("ivr_seconds", "wait_seconds", "ring_seconds")),
        *(Field(name, "seconds") for name in SERVICE),
        Field("arrived_at", "instant", required=True),
        *(Field(name, "instant") for name in LEG_TIMES[1:]),
    ),
)
AGENTS = Record(
    "agents",
    "staging.delimited_agents",
    key=("agent_id", "valid_from"),
    day="valid_from",
    partitioned=False,
    fields=(
        Field("agent_id", required=True, member="agent"),
        Field("agent_name"),
        Field("team_id", member="team"),
        Field("team_name"),
        Field("region_code", member="region"),
        Field("valid_from", "day", required=True),
    ),
    described=LEGS.table,
)
QUEUES = Record(
    "queues",
    "staging.delimited_queues",
    key=("queue_id", "valid_from"),
    day="valid_from",
    partitioned=False,
    fields=(
        Field("queue_id", required=True, member="queue"),
        Field("queue_name"),
        Field("business_type", member="business_type"),
        Field("valid_from", "day", required=True),
    ),
    described=LEGS.table,
)
RECORDS = {record.name: record for record in (LEGS, AGENTS, QUEUES)}
