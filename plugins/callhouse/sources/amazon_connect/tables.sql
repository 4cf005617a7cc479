-- Staging tables of Amazon Connect. Idempotent. One row = one record of a stream.
set role callhouse_owner;

-- The arrival of each call: the initiation of its first contact, whatever order contacts come in.
-- It decides the business day of all its contacts.
create table if not exists staging.amazon_connect_calls (
    source text not null,
    call_id text not null,
    business_day date not null,
    first_event_at timestamptz not null,
    arrived_at timestamptz not null,
    primary key (source, call_id)
);

-- The chain of contacts: which one a contact follows, and the call that makes it part of. Of several
-- versions the newest tells.
create table if not exists staging.amazon_connect_links (
    source text not null,
    row_id text not null,
    previous_id text not null,
    own_call_id text not null,         -- as far as the contact itself tells
    call_id text not null,             -- as far as those before it tell
    version timestamptz not null,
    row_hash uuid not null,
    primary key (source, row_id)
);
create index if not exists amazon_connect_links_previous
on staging.amazon_connect_links (source, previous_id);

-- One row per version of a contact record. Daily partitions by the local day of the call's arrival.
create table if not exists staging.amazon_connect_contacts (
    source text not null,
    unit_id bigint not null,
    line_number bigint not null,       -- number of the object in its file
    row_hash uuid not null,            -- md5 of the content, whatever the order of its keys
    superseded_by bigint,              -- unit that holds a newer version of the contact
    contact_id text not null,
    call_id text not null,
    initial_contact_id text,
    previous_contact_id text,
    next_contact_id text,
    contact_channel text,              -- VOICE, CHAT, TASK …
    initiation_method text,
    disconnect_reason text,
    queue_id text,                     -- null: none, or an agent's personal one
    agent_id text,
    agent_name text,
    team_id text,                      -- of the agent, at the time of the contact
    team_name text,
    agent_region_code text,
    routing_profile text,
    caller_token uuid,
    caller_key_version smallint,
    caller_region_code text,           -- ISO 3166-2 (China) or ISO 3166-1
    caller_carrier text,
    hotline_id text,
    business_type text,
    priority text,
    self_service text,                 -- menu | bot
    ivr_outcome text,                  -- contained
    queue_exit text,                   -- timeout | exit_key | callback_requested
    voicemail text,                    -- left | none
    transferred_to text,               -- kind of the destination outside the instance
    survey_type text,                  -- csat | nps | ces
    attributes jsonb,                  -- all contact attributes, long numbers masked
    other_fields jsonb,                -- what no column holds, long numbers masked
    data_issues text[],
    connection_attempts integer,
    queue_seconds numeric,             -- durations that the record reports
    talk_seconds numeric,
    hold_seconds numeric,
    acw_seconds numeric,
    survey_score numeric,
    business_day date not null,
    event_at timestamptz not null,     -- InitiationTimestamp
    connected_to_system_at timestamptz,
    enqueued_at timestamptz,
    dequeued_at timestamptz,
    connected_to_agent_at timestamptz,
    acw_started_at timestamptz,
    acw_ended_at timestamptz,
    transfer_completed_at timestamptz,
    disconnected_at timestamptz,
    survey_offered_at timestamptz,
    survey_answered_at timestamptz,
    last_update_at timestamptz not null
) partition by range (business_day);

-- One row per agent event. Daily partitions by the local day of the event.
create table if not exists staging.amazon_connect_agent_events (
    source text not null,
    unit_id bigint not null,
    line_number bigint not null,       -- number of the object in its file
    row_hash uuid not null,            -- md5 of the fields
    superseded_by bigint,              -- unit that holds the row of this EventId that counts
    event_id text not null,
    event_type text not null,
    agent_id text not null,
    agent_name text,
    team_id text,
    team_name text,
    agent_region_code text,
    routing_profile text,
    status_name text,                  -- of the agent, from the event on
    status_type text,                  -- ROUTABLE, CUSTOM, OFFLINE, SYSTEM
    call_id text,                      -- of the contact that the agent is busy with
    contact_id text,
    contact_state text,
    initiation_method text,
    queue_id text,
    previous_status_name text,         -- the same, before the event
    previous_status_type text,
    previous_call_id text,
    previous_contact_id text,
    previous_contact_state text,
    previous_initiation_method text,
    previous_queue_id text,
    other_fields jsonb,                -- what no column holds, long numbers masked
    data_issues text[],
    business_day date not null,
    event_at timestamptz not null,
    previous_started_at timestamptz    -- since when the state before the event lasted
) partition by range (business_day);

-- What each kind of record tells of an agent, a row per day: of several on a day the latest.
create table if not exists staging.amazon_connect_agents (
    source text not null,
    record text not null,
    agent_id text not null,
    agent_name text,
    team_id text,
    team_name text,
    agent_region_code text,
    seen_on date not null,
    primary key (source, record, agent_id, seen_on)
);

reset role;
