-- Staging tables of Asterisk feeds. Idempotent. One row = one event of a queue_log.
set role callhouse_owner;

-- The arrival of each call: the beginning of its first event, wherever that was landed. It decides
-- the business day of all its events.
create table if not exists staging.asterisk_calls (
    source text not null,
    call_id text not null,
    business_day date not null,
    first_event_at timestamptz not null,
    arrived_at timestamptz not null,
    primary key (source, call_id)
);

-- One row per event. Daily partitions by business day: of an event of a call the local day of the
-- call's arrival, of any other the local day of its own time.
create table if not exists staging.asterisk_events (
    source text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,            -- md5 of the line: the identity of an event
    call_id text,                      -- null: the event is of no customer's call
    reported_call_id text,             -- as the log has it: NONE, REALTIME, an agent's channel …
    queue_id text,
    agent_id text,
    event text not null,
    data1 text,
    data2 text,                        -- of ENTERQUEUE the caller: see caller_token
    data3 text,
    data4 text,
    data5 text,                        -- the fifth and whatever follows, with their separators
    hotline_id text,                   -- of DID
    caller_token uuid,
    caller_key_version smallint,
    caller_region_code text,           -- ISO 3166-2 (China) or ISO 3166-1
    caller_carrier text,
    data_issues text[],
    wait_seconds numeric,              -- durations that the event reports, all in seconds
    ring_seconds numeric,
    talk_seconds numeric,
    business_day date not null,
    event_at timestamptz not null,
    began_at timestamptz not null,     -- event_at less reported wait and talk: entry into the queue
    login_seconds numeric,             -- of a logoff: how long the session was
    wrapup_seconds numeric             -- of WRAPUPSTART: planned length
) partition by range (business_day);
alter table staging.asterisk_events add column if not exists login_seconds numeric;
alter table staging.asterisk_events add column if not exists wrapup_seconds numeric;

reset role;
