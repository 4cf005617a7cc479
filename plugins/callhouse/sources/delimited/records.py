"""What files of delimited feeds may hold: their fields and staging tables."""

from __future__ import annotations

from callhouse.sources.contract import (
    ABANDON_STAGES,
    ACTIVITIES,
    CHANNELS,
    OFFER_OUTCOMES,
    OUTCOMES,
    STATES,
    STEP_OUTCOMES,
    SURVEY_SCALES,
    TRANSFER_TYPES,
    Field,
    Record,
)

# In the order in which they happen.
LEG_TIMES = (
    "arrived_at", "ivr_entered_at", "ivr_left_at", "queue_entered_at", "queue_left_at",
    "answered_at", "released_at", "ended_at",
)  # fmt: skip
# Reported durations and the row times that bound them (METRICS.md, ruling 1), of every record.
DURATIONS = {
    "ivr_seconds": ("ivr_entered_at", "ivr_left_at"),
    "wait_seconds": ("queue_entered_at", "queue_left_at"),
    "talk_seconds": ("answered_at", "released_at"),
    "ring_seconds": ("offered_at", "ended_at"),
    "step_seconds": ("entered_at", "left_at"),
}
# A state touches two local days at most, whatever the clock does; longer ones are nobody's work.
LONGEST_STATE_SECONDS = 20 * 3600
# A planned stretch may be an absence of a whole day, which has 25 hours in autumn.
LONGEST_PLANNED_SECONDS = 25 * 3600
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
    is_reference=True,
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
    is_reference=True,
)
AGENT_STATES = Record(
    "agent_states",
    "staging.delimited_agent_states",
    key=("agent_id", "started_at"),
    day="business_day",
    partitioned=True,
    last_counts=True,
    fields=(
        Field("agent_id", required=True, member="agent"),
        Field("state", "code", required=True, codes=STATES),
        Field("reason", free="kept"),
        Field("call_id"),
        Field("queue_id", member="queue"),
        Field("started_at", "instant", required=True),
        Field("ended_at", "instant", required=True),
    ),
)
OFFERS = Record(
    "offers",
    "staging.delimited_offers",
    key=("call_id", "agent_id", "offered_at"),
    day="business_day",
    partitioned=True,
    last_counts=True,
    fields=(
        Field("call_id", required=True),
        Field("queue_id", member="queue"),
        Field("agent_id", required=True, member="agent"),
        Field("outcome", "code", required=True, codes=OFFER_OUTCOMES),
        Field("ring_seconds", "seconds"),
        Field("arrived_at", "instant", required=True),
        Field("offered_at", "instant", required=True),
        Field("ended_at", "instant"),
    ),
)
IVR_STEPS = Record(
    "ivr_steps",
    "staging.delimited_ivr_steps",
    key=("call_id", "step_number"),
    day="business_day",
    partitioned=True,
    last_counts=True,
    fields=(
        Field("call_id", required=True),
        Field("step_number", "integer", required=True),
        Field("channel", "code", required=True, codes=("ivr", "bot")),
        Field("node"),
        Field("outcome", "code", codes=STEP_OUTCOMES),
        Field("step_seconds", "seconds"),
        Field("arrived_at", "instant", required=True),
        Field("entered_at", "instant", required=True),
        Field("left_at", "instant"),
    ),
)
SURVEYS = Record(
    "surveys",
    "staging.delimited_surveys",
    key=("survey_id",),
    day="business_day",
    partitioned=True,
    last_counts=True,
    fields=(
        Field("survey_id", required=True),
        Field("call_id"),
        Field("survey_type", "code", required=True, codes=tuple(SURVEY_SCALES)),
        Field("channel", "code", codes=CHANNELS, member="channel"),
        Field("queue_id", member="queue"),
        Field("agent_id", member="agent"),
        Field("score", "integer"),
        Field("comment", free="expires"),
        # Of the call; without it the survey belongs to the day of its offer.
        Field("arrived_at", "instant"),
        Field("offered_at", "instant", required=True),
        Field("answered_at", "instant"),
    ),
)
# A planned stretch of an agent's shift. `shift_date` is the day of whose plan it is a part, also
# after midnight: a plan that is sent again replaces the one of the same agent and shift.
SCHEDULES = Record(
    "schedules",
    "staging.delimited_schedules",
    key=(),
    day="business_day",
    partitioned=True,
    plan=("agent_source", "agent_id", "shift_date"),
    version="planned_at",
    fields=(
        # Whose agents they are, where another source tells what they did.
        Field("agent_source"),
        Field("agent_id", required=True, member="agent"),
        Field("activity", "code", required=True, codes=ACTIVITIES),
        Field("paid", "code", required=True, codes=("yes", "no")),
        Field("shift_date", "day", required=True),
        Field("starts_at", "instant", required=True),
        Field("ends_at", "instant", required=True),
        Field("planned_at", "instant"),
    ),
)
# What the carrier says it delivered: no call of ours, but what ours are compared with. The id of a
# line may come back another day; where there is none, the whole line is its own.
CARRIER_CALLS = Record(
    "carrier_calls",
    "staging.delimited_carrier_calls",
    key=("carrier_call_id", "started_at"),
    day="business_day",
    partitioned=True,
    last_counts=True,
    lane="followups",
    fields=(
        Field("carrier_call_id"),
        Field("caller", "caller"),
        Field("caller_region_code"),
        Field("caller_carrier"),
        Field("hotline_id", required=True),
        Field("trunk"),
        Field("answered", "code", codes=("yes", "no", "unknown")),
        Field("call_seconds", "seconds"),
        Field("billed_seconds", "seconds"),
        Field("started_at", "instant", required=True),
    ),
)
RECORDS = {
    record.name: record
    for record in (
        LEGS,
        AGENTS,
        QUEUES,
        AGENT_STATES,
        OFFERS,
        IVR_STEPS,
        SURVEYS,
        SCHEDULES,
        CARRIER_CALLS,
    )
}
