-- Staging tables of delimited feeds. Idempotent. One row = one record of a file, typed and coded.
set role callhouse_owner;

-- One row per leg: the way of one call through IVR, at most one queue and at most one agent.
-- A feed with one row per call has legs numbered 1. Daily partitions by business day (the local
-- day of the call's arrival), made when a file needs them; none by default, so no row can hide.
create table if not exists staging.delimited_legs (
    source text not null,
    call_id text not null,
    leg_number integer not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,            -- md5 of the row's raw fields: exact duplicates
    superseded_by bigint,              -- unit that brought a newer version of this leg
    caller_token uuid,
    caller_key_version smallint,
    caller_region_code text,           -- ISO 3166-2 (China) or ISO 3166-1
    caller_carrier text,
    hotline_id text,
    channel text,                      -- ivr | bot | human | callback | voicemail
    business_type text,
    queue_id text,                     -- null: the leg reached no queue
    agent_id text,
    priority text,
    outcome text not null,             -- see docs: leg outcomes
    abandon_stage text,                -- ivr | bot | queue | ring | hold | voicemail
    transfer_type text,                -- blind | attended | consult: how the agent passed it on
    hangup_party text,                 -- customer | agent | system
    data_issues text[],
    ivr_seconds numeric,
    wait_seconds numeric,              -- queue entry to answer or departure, ringing included
    ring_seconds numeric,
    talk_seconds numeric,
    hold_seconds numeric,
    acw_seconds numeric,
    business_day date not null,
    arrived_at timestamptz not null,   -- of the call, the same on each of its legs
    ivr_entered_at timestamptz,
    ivr_left_at timestamptz,
    queue_entered_at timestamptz,
    queue_left_at timestamptz,
    answered_at timestamptz,
    released_at timestamptz,           -- end of this leg's conversation
    ended_at timestamptz               -- of the call
) partition by range (business_day);

create table if not exists staging.delimited_agents (
    source text not null,
    agent_id text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,
    agent_name text,
    team_id text,
    team_name text,
    region_code text,
    valid_from date not null
);

create table if not exists staging.delimited_queues (
    source text not null,
    queue_id text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,
    queue_name text,
    business_type text,
    valid_from date not null
);

-- Detail rows below are partitioned like legs; `business_day` is the local day of the call's arrival
-- except of agent states. Of a state that runs over midnight there is the same row on both days:
-- dbt cuts it, so that a day finds all its states in its own partition.
create table if not exists staging.delimited_agent_states (
    source text not null,
    agent_id text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,
    state text not null,               -- ready | ring | dial | consult | talk | hold | acw | pause
    reason text,                       -- of a pause
    call_id text,
    queue_id text,
    data_issues text[],
    business_day date not null,        -- local day of the state
    started_at timestamptz not null,
    ended_at timestamptz not null
) partition by range (business_day);

create table if not exists staging.delimited_offers (
    source text not null,
    call_id text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,
    queue_id text,
    agent_id text not null,
    outcome text not null,             -- answered | no_answer | rejected | cancelled | failed
    data_issues text[],
    ring_seconds numeric,
    business_day date not null,
    arrived_at timestamptz not null,   -- of the call
    offered_at timestamptz not null,
    ended_at timestamptz
) partition by range (business_day);

create table if not exists staging.delimited_ivr_steps (
    source text not null,
    call_id text not null,
    step_number integer not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,
    channel text not null,             -- ivr | bot
    node text,
    outcome text,                      -- continued | contained | abandoned
    data_issues text[],
    step_seconds numeric,
    business_day date not null,
    arrived_at timestamptz not null,   -- of the call
    entered_at timestamptz not null,
    left_at timestamptz
) partition by range (business_day);

create table if not exists staging.delimited_surveys (
    source text not null,
    survey_id text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,
    call_id text,
    survey_type text not null,         -- csat | nps | ces
    channel text,
    queue_id text,
    agent_id text,
    data_issues text[],
    score integer,                     -- null: offered, not answered
    business_day date not null,        -- without arrived_at the local day of the offer
    arrived_at timestamptz,            -- of the call
    offered_at timestamptz not null,
    answered_at timestamptz
) partition by range (business_day);
-- Redacted, and empty once it is older than it may be kept.
alter table staging.delimited_surveys add column if not exists comment text;

-- Planned stretches of agents' shifts. `business_day` is the local day of the stretch; one over
-- midnight is there on both days, and dbt cuts it, as states of agents.
create table if not exists staging.delimited_schedules (
    source text not null,
    agent_id text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,              -- unit with the newer plan of the agent's shift
    agent_source text,                 -- source that knows the agent; null: this one
    activity text not null,            -- work | break | lunch | meeting | training | absence
    paid text not null,                -- yes | no
    data_issues text[],
    shift_date date not null,          -- of whose plan the stretch is a part
    business_day date not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    planned_at timestamptz             -- version of the plan; null: files tell by their order
) partition by range (business_day);

-- Lines of a carrier's bill or of the trunk's own records: no calls, but what calls are compared
-- with. `business_day` is the local day of the start, by the carrier's clock.
create table if not exists staging.delimited_carrier_calls (
    source text not null,
    carrier_call_id text not null,     -- without an id of the carrier's the hash of the line
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,
    superseded_by bigint,
    caller_token uuid,
    caller_key_version smallint,
    caller_region_code text,
    caller_carrier text,               -- of the caller's number
    hotline_id text not null,
    trunk text,                        -- the line or the carrier that delivered the call
    answered text,                     -- yes | no | unknown: whether the line was picked up
    data_issues text[],
    call_seconds numeric,              -- from start to end
    billed_seconds numeric,
    business_day date not null,
    started_at timestamptz not null
) partition by range (business_day);

reset role;
