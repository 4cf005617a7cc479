-- Staging tables of Asterisk feeds. Idempotent.
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

-- One row per call detail record: one way of a channel, alone or with another. Days as above.
create table if not exists staging.asterisk_cdr_records (
    source text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,            -- md5 of the line: the identity of a record
    call_id text not null,             -- linkedid, else uniqueid
    unique_id text,                    -- of the channel
    linked_id text,
    direction text not null,           -- inbound, callback, outbound, internal: by its channel
    context text,
    channel text,                      -- names and texts with long numbers masked
    application text,                  -- the last one
    application_data text,
    application_kind text,             -- menu, bot, announcement, queue, dial, voicemail
    account_code text,
    user_field text,
    agent_id text,                     -- the agent whose channel takes part, as queue_log has it
    hotline_id text,                   -- the destination, where it is a number of the centre
    caller_token uuid,
    caller_key_version smallint,
    caller_region_code text,           -- ISO 3166-2 (China) or ISO 3166-1
    caller_carrier text,
    destination text,
    peer_channel text,
    peer_account text,
    disposition text,
    data_issues text[],
    sequence bigint,
    duration_seconds numeric,          -- as reported
    billed_seconds numeric,
    business_day date not null,
    event_at timestamptz not null,     -- the start
    began_at timestamptz not null,
    answered_at timestamptz,
    ended_at timestamptz
) partition by range (business_day);

-- One row per channel event. Days as above.
create table if not exists staging.asterisk_cel_events (
    source text not null,
    unit_id bigint not null,
    line_number bigint not null,
    row_hash uuid not null,            -- md5 of the line: the identity of an event
    call_id text,                      -- linkedid, else uniqueid
    unique_id text,
    linked_id text,
    direction text not null,           -- inbound, callback, outbound, internal: by its channel
    context text,
    channel text,                      -- names and texts with long numbers masked
    application text,
    application_data text,
    application_kind text,             -- menu, bot, announcement, queue, dial, voicemail
    account_code text,
    user_field text,
    agent_id text,                     -- the agent whose channel it is, as queue_log has it
    hotline_id text,                   -- number dialled, where it is one of the centre's
    caller_token uuid,
    caller_key_version smallint,
    caller_region_code text,           -- ISO 3166-2 (China) or ISO 3166-1
    caller_carrier text,
    event text not null,               -- of a user-defined event its own name
    extension text,
    peer text,                         -- names of the other channels in the bridge
    extra text,                        -- JSON
    hangup_source text,                -- of HANGUP: the channel that hung up
    hangup_party text,
    hangup_cause bigint,               -- Q.850
    data_issues text[],
    business_day date not null,
    event_at timestamptz not null,
    began_at timestamptz not null      -- the same: an event takes no time
) partition by range (business_day);

-- Calls and agents that have to be read so that those touched come out right. An agent's events of
-- no call are always read; of the agent's calls the latest three, and all since the arrival of a
-- touched call: after-call work belongs to the conversation before it.
create or replace function live.widen_asterisk(wanted text) returns void
language plpgsql set search_path = pg_catalog as $$
begin
    -- After-call work that names no call changes the agent's call before it.
    insert into live.touched_calls (source, call_id, is_written)
    select distinct wanted, latest.call_id, true
    from live.touched_agents as a
    cross join lateral (
        select e.call_id
        from live.asterisk_events as e
        where
            e.source = wanted and e.agent_id = a.agent_id
            and e.event = 'CONNECT' and coalesce(e.call_id, '') <> ''
        order by e.event_at desc
        limit 1
    ) as latest
    where a.source = wanted
    on conflict do nothing;

    insert into live.touched_agents (source, agent_id, is_written)
    select distinct wanted, e.agent_id, true
    from live.touched_calls as c
    inner join live.asterisk_events as e on e.source = c.source and e.call_id = c.call_id
    where c.source = wanted and e.agent_id is not null
    on conflict do nothing;

    insert into live.touched_calls (source, call_id, is_written)
    select distinct wanted, read.call_id, false
    from (
        select e.agent_id, min(e.began_at) as since
        from live.touched_calls as c
        inner join live.asterisk_events as e on e.source = c.source and e.call_id = c.call_id
        where c.source = wanted and c.is_written and e.agent_id is not null
        group by e.agent_id
    ) as a
    inner join live.asterisk_events as read
        on read.source = wanted and read.agent_id = a.agent_id and read.event_at >= a.since
    where read.call_id is not null
    on conflict do nothing;

    -- And the agent's last three. One after the other, by index from the newest event on: to sort an
    -- agent's calls would be to read the agent's day, with every call of it once more. (`coalesce`:
    -- of `is not null` a plan that was made in the morning reads the index on calls, as a whole.)
    insert into live.touched_calls (source, call_id, is_written)
    with recursive latest as (
        select a.agent_id, array[''] as call_ids
        from live.touched_agents as a
        where a.source = wanted
        union all
        select l.agent_id, l.call_ids || before.call_id
        from latest as l
        cross join lateral (
            select e.call_id
            from live.asterisk_events as e
            where
                e.source = wanted and e.agent_id = l.agent_id
                and coalesce(e.call_id, '') <> all (l.call_ids)
            order by e.event_at desc
            limit 1
        ) as before
        where cardinality(l.call_ids) < 4
    )

    select distinct wanted, call_id, false
    from latest
    cross join lateral unnest(call_ids) as call_id
    where call_id <> ''
    on conflict do nothing;
end
$$;
revoke execute on function live.widen_asterisk(text) from public;

reset role;
