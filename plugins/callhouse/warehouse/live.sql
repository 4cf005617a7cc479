-- The live lane: how far each file that a collector follows was read, what has come of the days
-- that go on, and what it means now. A row moves in the transaction that lands what was read, so
-- that no line is lost and none comes twice.
create schema if not exists live authorization callhouse_owner;
create schema if not exists live_rows authorization callhouse_owner;
create schema if not exists live_intake authorization callhouse_owner;
grant usage on schema live to callhouse_reader;

set role callhouse_owner;

create table if not exists ops.tail_files (
    file_id bigint generated always as identity primary key,
    feed text not null,
    path text not null,               -- as it is followed; rotation moves the file away from it
    device bigint not null,
    inode bigint not null,            -- used again by the file system: `mark` tells files apart
    offset_bytes bigint not null default 0,
    lines bigint not null default 0,
    mark text not null default '',    -- hashes of its first bytes and of those before the offset
    is_current boolean not null,      -- still at `path`, as far as is known
    looked_at timestamptz not null,   -- of the current one: until then everything beside it is known
    left_at timestamptz,              -- when another file was found at `path`
    finished_at timestamptz
);
create unique index if not exists tail_files_current
on ops.tail_files (feed, path) where is_current;

-- Requests that the receiver has landed, for as long as their senders may repeat them: one that was
-- committed and not answered is answered as it would have been, and its bad records are not set aside
-- once more. Several requests are one unit.
create table if not exists ops.pushes (
    feed text not null,
    request_hash bytea not null,      -- sha256 of record and body
    unit_id bigint not null references ops.units on delete cascade,
    read_rows integer not null,
    staged_rows integer not null,
    quarantined_rows integer not null,
    received_at timestamptz not null default now(),
    primary key (feed, request_hash)
);
create index if not exists pushes_received on ops.pushes (received_at);

-- ---------------------------------------------------------------- the rows of the days that go on
-- Sources that a collector brings. `live.<table>` copies what is staged of them today and yesterday
-- (made by callhouse.live.state); the staging models, kept as views in `live_intake` by dbt target
-- `live`, read `live_rows.<table>`: the copied rows of the calls and agents that are touched here.
-- So a vendor's meaning stays in one place, and its cost goes with what has just come.
create table if not exists live.sources (
    source text primary key references ops.sources,
    source_name text not null,
    time_zone text not null,
    looked_at timestamptz,            -- when the collector last saw that it has everything
    newest_event_at timestamptz
);

-- Filled and emptied within a transaction: nobody else ever sees a row of it.
create unlogged table if not exists live.touched_calls (
    source text not null,
    call_id text not null,
    is_written boolean not null,      -- else only read: an agent's other calls
    primary key (source, call_id)
);
create unlogged table if not exists live.touched_agents (
    source text not null,
    agent_id text not null,
    is_written boolean not null,
    primary key (source, agent_id)
);

-- ---------------------------------------------------------------- state
create table if not exists live.queue_visits (
    source text not null,
    call_id text not null,
    visit_number integer not null,
    business_day date not null,
    queue_id text not null,
    queue_name text not null,
    agent_id text not null,
    agent_name text not null,
    team_id text not null,
    team_name text not null,
    region_code text not null,
    region_name text not null,
    channel text not null,
    hotline_id text not null,
    outcome text not null,            -- incomplete: waits, as far as is known
    caller_token uuid,
    entered_at timestamptz not null,
    left_at timestamptz,
    target_seconds numeric,
    wait_seconds numeric,
    calls_offered integer not null,
    calls_answered integer not null,
    calls_abandoned integer not null,
    answered_within_target integer not null,
    short_abandons integer not null,
    answered_waits integer not null,
    answered_wait_seconds numeric,
    is_last boolean not null,         -- of the call: from an earlier one it has gone on
    primary key (source, call_id, visit_number)
);
create index if not exists queue_visits_day on live.queue_visits (business_day);
create index if not exists queue_visits_waiting on live.queue_visits (entered_at)
where outcome = 'incomplete' and is_last;
create index if not exists queue_visits_caller on live.queue_visits (source, caller_token);
create index if not exists queue_visits_entered on live.queue_visits (entered_at);
create index if not exists queue_visits_lost on live.queue_visits (business_day)
where calls_abandoned = 1 and short_abandons = 0;

create table if not exists live.agent_connections (
    source text not null,
    call_id text not null,
    connection_number integer not null,
    business_day date not null,
    queue_id text not null,
    queue_name text not null,
    agent_id text not null,
    agent_name text not null,
    team_id text not null,
    team_name text not null,
    region_code text not null,
    region_name text not null,
    connected_at timestamptz not null,
    ended_at timestamptz,
    connections_handled integer not null,
    handle_seconds numeric not null,
    is_last boolean not null,
    primary key (source, call_id, connection_number)
);
create index if not exists agent_connections_day on live.agent_connections (business_day);
create index if not exists agent_connections_open on live.agent_connections (connected_at)
where ended_at is null and is_last;

-- The last four states of an agent: the one of the newest event, and what follows by itself (planned
-- after-call work ends, midnight cuts). What is open reaches as far as it may, at most 16 hours
-- ahead: the state now is the one that `now()` is in. Older states are read from the marts.
create table if not exists live.agent_states (
    source text not null,
    agent_id text not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    business_day date not null,
    agent_name text not null,
    team_id text not null,
    team_name text not null,
    region_code text not null,
    region_name text not null,
    queue_id text not null,
    queue_name text not null,
    state text not null,
    reason text,
    call_id text,
    primary key (source, agent_id, started_at)
);

-- What a quarter of an hour of today usually brings: mean of the same weekday in eight weeks.
create table if not exists live.usual_quarters (
    source text not null,
    queue_id text not null,
    interval_start_at timestamptz not null,
    business_day date not null,
    days integer not null,
    calls_offered numeric not null,
    calls_answered numeric not null,
    calls_abandoned numeric not null,
    primary key (source, queue_id, interval_start_at)
);

-- What a day has come to so far, so that nobody adds up its calls again and again: a row per queue,
-- team, region and agent, the other columns of which are null, and one per group of calls that have
-- all four in common. Triggers keep it.
create table if not exists live.day_totals (
    source text not null,
    business_day date not null,
    queue_id text,
    team_id text,
    region_code text,
    agent_id text,
    queue_name text,                  -- and target: as the last one has them
    target_seconds numeric,
    visits bigint not null,
    calls_offered bigint not null,
    calls_answered bigint not null,
    calls_abandoned bigint not null,
    answered_within_target bigint not null,
    answered_waits bigint not null,
    answered_wait_seconds numeric not null,
    connections bigint not null,
    connections_handled bigint not null,
    handle_seconds numeric not null,
    unique nulls not distinct (source, business_day, queue_id, team_id, region_code, agent_id)
);
-- Without the groups, of which there are as many as calls where these are few.
create index if not exists day_totals_whole on live.day_totals (business_day)
where queue_id is null or agent_id is null;

-- What time it is. Comparisons with the truth of a simulated day set it. With a search path of its
-- own it would be called for each row, which costs more than all else that is done with a row.
create or replace function live.clock() returns timestamptz
language sql stable as $$
    select coalesce(
        nullif(pg_catalog.current_setting('callhouse.clock', true), '')::pg_catalog.timestamptz,
        pg_catalog.statement_timestamp()
    )
$$;

-- The ten seconds that a moment lies in, by their beginning.
create or replace function live.ten_seconds(moment timestamptz) returns timestamptz
language sql immutable as $$
    select date_bin('10 seconds', moment, timestamptz '2000-01-01 00:00:00+00')
$$;

-- The same of the last fifteen minutes, by ten seconds of entering: a row per queue, whose region is
-- null, and one per queue and region. For those who see either whole; see bi.live_queues.
create table if not exists live.recent_totals (
    source text not null,
    business_day date not null,
    starts_at timestamptz not null,
    queue_id text not null,
    region_code text,
    calls_offered bigint not null,
    calls_answered bigint not null,
    calls_abandoned bigint not null,
    answered_within_target bigint not null,
    unique nulls not distinct (source, starts_at, queue_id, region_code, business_day)
);

create or replace function live.add_up() returns trigger
language plpgsql set search_path = pg_catalog as $$
declare
    step record;
    sums text := case tg_table_name
        when 'queue_visits' then
            'case when queue_id is not null then max(target_seconds) end, '
            '%1$s count(*), %1$s sum(calls_offered), '
            '%1$s sum(calls_answered), %1$s sum(calls_abandoned), '
            '%1$s sum(answered_within_target), %1$s sum(answered_waits), '
            '%1$s coalesce(sum(answered_wait_seconds), 0), 0, 0, 0'
        else 'null, 0, 0, 0, 0, 0, 0, 0, %1$s count(*), %1$s sum(connections_handled), '
            '%1$s sum(handle_seconds)'
    end;
begin
    for step in
        select * from (values ('rows_before', '-'), ('rows_after', '')) as s (name, sign)
        where
            (s.name = 'rows_before' and tg_op <> 'INSERT')
            or (s.name = 'rows_after' and tg_op <> 'DELETE')
    loop
        execute format(
            'insert into live.day_totals as t '
            'select source, business_day, queue_id, team_id, region_code, agent_id, '
            'case when queue_id is not null then max(queue_name) end, ' || sums || ' from %2$I group by source, business_day, '
            'grouping sets ((queue_id), (team_id), (region_code), (agent_id), '
            '(queue_id, team_id, region_code, agent_id)) '
            'on conflict (source, business_day, queue_id, team_id, region_code, agent_id) '
            'do update set queue_name = excluded.queue_name, '
            'target_seconds = coalesce(excluded.target_seconds, t.target_seconds), '
            'visits = t.visits + excluded.visits, '
            'calls_offered = t.calls_offered + excluded.calls_offered, '
            'calls_answered = t.calls_answered + excluded.calls_answered, '
            'calls_abandoned = t.calls_abandoned + excluded.calls_abandoned, '
            'answered_within_target = t.answered_within_target + excluded.answered_within_target, '
            'answered_waits = t.answered_waits + excluded.answered_waits, '
            'answered_wait_seconds = t.answered_wait_seconds + excluded.answered_wait_seconds, '
            'connections = t.connections + excluded.connections, '
            'connections_handled = t.connections_handled + excluded.connections_handled, '
            'handle_seconds = t.handle_seconds + excluded.handle_seconds',
            step.sign, step.name
        );
        if tg_table_name = 'queue_visits' then
            -- What is older is in no quarter of an hour that anybody will look at.
            execute format(
                'insert into live.recent_totals as t '
                'select source, business_day, live.ten_seconds(entered_at), queue_id, region_code, '
                '%1$s sum(calls_offered), %1$s sum(calls_answered), %1$s sum(calls_abandoned), '
                '%1$s sum(answered_within_target) from %2$I '
                'where entered_at > live.clock() - interval ''20 minutes'' '
                'group by source, business_day, live.ten_seconds(entered_at), queue_id, '
                'grouping sets ((), (region_code)) '
                'on conflict (source, starts_at, queue_id, region_code, business_day) do update set '
                'calls_offered = t.calls_offered + excluded.calls_offered, '
                'calls_answered = t.calls_answered + excluded.calls_answered, '
                'calls_abandoned = t.calls_abandoned + excluded.calls_abandoned, '
                'answered_within_target = '
                't.answered_within_target + excluded.answered_within_target',
                step.sign, step.name
            );
        end if;
    end loop;
    return null;
end
$$;
do $$
declare
    name text;
    event text;
    seen text;
begin
    foreach name in array array['queue_visits', 'agent_connections']
    loop
        for event, seen in
            values ('insert', 'new table as rows_after'), ('delete', 'old table as rows_before'),
            ('update', 'old table as rows_before new table as rows_after')
        loop
            execute format(
                'create or replace trigger add_up_%1$s after %1$s on live.%2$I '
                'referencing %3$s for each statement execute function live.add_up()',
                event, name, seen
            );
        end loop;
    end loop;
    -- Of an instance that had calls before it had totals: they are counted as they come back.
    if not exists (select from live.day_totals) then
        foreach name in array array['queue_visits', 'agent_connections']
        loop
            execute format('create temporary table kept on commit drop as table live.%I', name);
            execute format('truncate live.%I', name);
            execute format('insert into live.%I select * from kept', name);
            drop table kept;
        end loop;
    end if;
end
$$;

-- The first day of a source that still goes on: yesterday's logins and calls reach into today.
create or replace function live.first_day(wanted text) returns date
language sql stable set search_path = pg_catalog as $$
    select (live.clock() at time zone time_zone)::date - 1
    from ops.sources where source = wanted
$$;

-- ---------------------------------------------------------------- moving
-- Work the state of the touched calls and agents out anew, from what is copied of them.
create or replace function live.renew(wanted text) returns void
language plpgsql set search_path = pg_catalog set jit = off as $$
declare
    widen text;
begin
    -- Where other calls and agents have to be read as well, the vendor's tables.sql says which.
    for widen in
        select p.proname from pg_proc as p
        where p.pronamespace = 'live'::regnamespace and starts_with(p.proname, 'widen_')
        order by 1
    loop
        execute format('select live.%I($1)', widen) using wanted;
    end loop;

    -- What follows reads the models as this session has them: see callhouse.live.state.
    perform pg_temp.fill_shared();

    delete from live.queue_visits as s using live.touched_calls as t
    where t.source = wanted and t.is_written and s.source = wanted and s.call_id = t.call_id;
    insert into live.queue_visits
    select
        v.source, v.call_id, v.visit_number, v.business_day, v.queue_id, v.queue_name,
        v.agent_id, v.agent_name, v.team_id, v.team_name, v.region_code, v.region_name,
        v.channel, v.hotline_id, v.outcome, c.caller_token, v.entered_at, v.left_at,
        v.target_seconds, v.wait_seconds, v.calls_offered, v.calls_answered, v.calls_abandoned,
        v.answered_within_target, v.short_abandons, v.answered_waits, v.answered_wait_seconds,
        v.visit_number = max(v.visit_number) over (partition by v.source, v.call_id)
    from pg_temp.fct_queue_visits as v
    inner join live.touched_calls as t on t.source = v.source and t.call_id = v.call_id
    left join pg_temp.int_calls__unioned as c
        on c.source = v.source and c.call_id = v.call_id and c.business_day = v.business_day
    where t.source = wanted and t.is_written;

    delete from live.agent_connections as s using live.touched_calls as t
    where t.source = wanted and t.is_written and s.source = wanted and s.call_id = t.call_id;
    insert into live.agent_connections
    select
        n.source, n.call_id, n.connection_number, n.business_day, n.queue_id, n.queue_name,
        n.agent_id, n.agent_name, n.team_id, n.team_name, n.region_code, n.region_name,
        n.connected_at, n.ended_at, n.connections_handled, n.handle_seconds,
        n.connection_number = max(n.connection_number) over (partition by n.source, n.call_id)
    from pg_temp.fct_agent_connections as n
    inner join live.touched_calls as t on t.source = n.source and t.call_id = n.call_id
    where t.source = wanted and t.is_written;

    delete from live.agent_states as s using live.touched_agents as t
    where t.source = wanted and t.is_written and s.source = wanted and s.agent_id = t.agent_id;
    insert into live.agent_states
    select
        s.source, s.agent_id, s.started_at, s.ended_at, s.business_day, s.agent_name, s.team_id,
        s.team_name, s.region_code, s.region_name, s.queue_id, s.queue_name, s.state, s.reason,
        s.call_id
    from (
        select
            f.*,
            row_number() over (
                partition by f.source, f.agent_id order by f.started_at desc
            ) as place
        from pg_temp.fct_agent_states as f
    ) as s
    inner join live.touched_agents as t on t.source = s.source and t.agent_id = s.agent_id
    where t.source = wanted and t.is_written and s.place <= 4;

    delete from live.recent_totals
    where source = wanted and starts_at < live.clock() - interval '20 minutes';
    delete from live.touched_calls where source = wanted;
    delete from live.touched_agents where source = wanted;
end
$$;
-- Copies of days that are read by index only. With statistics, plans that are kept would be made
-- anew whenever these change: half a second in which nothing is landed.
do $$
declare
    name text;
begin
    foreach name in array array[
        'touched_calls', 'touched_agents', 'queue_visits', 'agent_connections', 'agent_states',
        'day_totals', 'recent_totals'
    ]
    loop
        execute format(
            'alter table live.%I set (autovacuum_analyze_threshold = 2000000000)', name
        );
    end loop;
end
$$;

-- What today's quarters usually bring, from the published days of the same weekday. Safe to repeat.
create or replace function live.learn(wanted text) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    zone text := (select time_zone from live.sources where source = wanted);
    today date := (live.clock() at time zone zone)::date;
begin
    delete from live.usual_quarters where source = wanted;
    insert into live.usual_quarters
    select
        wanted,
        a.queue_id,
        (today + a.local_interval::time) at time zone zone,
        today,
        count(distinct a.business_day),
        sum(a.calls_offered)::numeric / count(distinct a.business_day),
        sum(a.calls_answered)::numeric / count(distinct a.business_day),
        sum(a.calls_abandoned)::numeric / count(distinct a.business_day)
    from marts.agg_queue_15min as a
    where
        a.source = wanted
        and a.business_day = any (array(
            select today - 7 * week from generate_series(1, 8) as week
        ))
    group by a.queue_id, a.local_interval;
end
$$;

-- ---------------------------------------------------------------- who sees it
do $$
declare
    relation text;
    part record;
    condition text;
    named text[];
begin
    foreach relation in array array[
        'queue_visits', 'agent_connections', 'agent_states', 'usual_quarters', 'day_totals',
        'recent_totals', 'sources'
    ]
    loop
        condition := '(select sec.sees_all())';
        named := '{}';
        for part in
            select s.scope, s.name
            from (
                values ('region', 'region_code'), ('team', 'team_id'), ('queue', 'queue_id'),
                ('agent', 'agent_id')
            ) as s (scope, name)
            inner join pg_attribute as a on a.attname = s.name
            where a.attrelid = format('live.%I', relation)::regclass
        loop
            condition := condition || format(
                ' or %I = any ((select sec.scope(%L))::text[])', part.name, part.scope
            );
            named := named || format('%L || (source || ''/'' || %I)', part.scope || '=', part.name);
        end loop;
        if cardinality(named) > 0 then -- as Mart.condition of transform/marts.py
            condition := condition || format(
                ' or (select sec.names_sources())'
                ' and array[%s] && (select sec.named_scopes())::text[]',
                array_to_string(named, ', ')
            );
        end if;
        if relation = 'sources' then -- names and how fresh they are: everybody's
            condition := 'true';
        end if;
        execute format('alter table live.%I enable row level security', relation);
        execute format('alter table live.%I force row level security', relation);
        execute format('drop policy if exists pipeline on live.%I', relation);
        execute format(
            'create policy pipeline on live.%I to callhouse_owner using (true) with check (true)',
            relation
        );
        execute format('drop policy if exists reader on live.%I', relation);
        execute format(
            'create policy reader on live.%I for select to callhouse_reader using (%s)',
            relation, condition
        );
        execute format('grant select on live.%I to callhouse_reader', relation);
    end loop;
end
$$;
revoke execute on all functions in schema live from public;

-- Whether a visit waits: as long as nothing tells of its end, but no longer than two hours. The line
-- of its end may be lost, and would be the longest wait of the whole day.
create or replace function live.waits(outcome text, is_last boolean, entered_at timestamptz)
returns boolean language sql stable as $$
    select outcome = 'incomplete' and is_last and entered_at > live.clock() - interval '2 hours'
$$;

create or replace function live.encoded(word text) returns text
language sql immutable as $$
    select regexp_replace(encode(convert_to(word, 'UTF8'), 'hex'), '(..)', '%\1', 'g')
$$;

-- The scopes that something counts for; without a source not for the whole, either.
create or replace function live.scopes(
    source text, queue_id text, team_id text, region_code text, agent_id text
) returns table (scope_type text, scope_id text)
language sql immutable as $$
    select s.scope_type, s.scope_id
    from (
        values ('all', case when source is not null then '*' end), ('source', source),
        ('queue', queue_id), ('team', team_id), ('region', region_code), ('agent', agent_id)
    ) as s (scope_type, scope_id)
    where s.scope_id is not null
$$;

revoke execute on function
live.waits(text, boolean, timestamptz), live.encoded(text),
live.scopes(text, text, text, text, text) from public;
grant execute on function
live.clock(), live.ten_seconds(timestamptz), live.waits(text, boolean, timestamptz),
live.encoded(text) to callhouse_reader;

-- ---------------------------------------------------------------- what it means now
create or replace view bi.live_sources with (security_invoker, security_barrier) as
select
    source,
    source_name,
    looked_at,
    newest_event_at,
    extract(epoch from live.clock() - looked_at) as data_age_seconds,
    coalesce(live.clock() - looked_at > interval '15 seconds', true) as is_stale,
    (live.clock() at time zone time_zone)::date as business_day
from live.sources;

-- Visits of today, and of yesterday what still waits.
create or replace view bi.live_queue_visits with (security_invoker, security_barrier) as
select
    v.source,
    v.source || ':' || v.call_id as call_key,
    v.call_id,
    v.visit_number,
    v.business_day,
    v.queue_id,
    v.queue_name,
    v.agent_id,
    v.agent_name,
    v.team_id,
    v.team_name,
    v.region_code,
    v.region_name,
    v.channel,
    v.hotline_id,
    v.outcome,
    v.caller_token,
    v.entered_at,
    v.left_at,
    v.target_seconds,
    coalesce(
        v.wait_seconds, case when w.waits then extract(epoch from live.clock() - v.entered_at) end
    ) as wait_seconds,
    v.calls_offered,
    v.calls_answered,
    v.calls_abandoned,
    v.answered_within_target,
    v.short_abandons,
    v.answered_waits,
    v.answered_wait_seconds,
    w.waits as is_waiting,
    w.waits and live.clock() - v.entered_at > v.target_seconds * interval '1 second'
        as is_over_target,
    v.entered_at > live.clock() - interval '15 minutes' as is_recent,
    case
        when w.waits
            then row_number() over (
                partition by v.source, v.queue_id, w.waits order by v.entered_at, v.call_id
            )
    end as queue_position
from live.queue_visits as v
inner join live.sources as s on v.source = s.source
cross join lateral (select live.waits(v.outcome, v.is_last, v.entered_at) as waits) as w
where
    v.business_day = (live.clock() at time zone s.time_zone)::date
    or (w.waits and v.business_day = (live.clock() at time zone s.time_zone)::date - 1);

-- Conversations that go on: while the agent still talks in them, where the agent is known.
create or replace view live.conversations with (security_invoker) as
select n.*
from live.agent_connections as n
where
    n.ended_at is null and n.is_last and n.connected_at > live.clock() - interval '16 hours'
    and (
        n.agent_id = 'unknown'
        or exists (
            select from live.agent_states as a
            where
                a.source = n.source
                and a.agent_id = n.agent_id
                and a.call_id = n.call_id
                and a.state in ('talk', 'hold')
                and a.ended_at > live.clock()
        )
    );

-- Conversations of today, and of yesterday those that go on.
create or replace view bi.live_agent_connections with (security_invoker, security_barrier) as
select
    n.source,
    n.source || ':' || n.call_id as call_key,
    n.call_id,
    n.connection_number,
    n.business_day,
    n.queue_id,
    n.queue_name,
    n.agent_id,
    n.agent_name,
    n.team_id,
    n.team_name,
    n.region_code,
    n.region_name,
    n.connected_at,
    n.ended_at,
    n.connections_handled,
    n.handle_seconds,
    c.source is not null as is_in_progress
from live.agent_connections as n
inner join live.sources as s on n.source = s.source
left join live.conversations as c
    on
        n.source = c.source
        and n.call_id = c.call_id
        and n.connection_number = c.connection_number
where
    n.business_day = (live.clock() at time zone s.time_zone)::date
    or (
        c.source is not null
        and n.business_day = (live.clock() at time zone s.time_zone)::date - 1
    );

-- Agents who are logged in, and what they do now.
create or replace view bi.live_agents with (security_invoker, security_barrier) as
select
    a.source,
    a.agent_id,
    a.agent_name,
    a.team_id,
    a.team_name,
    a.region_code,
    a.region_name,
    a.queue_id,
    a.queue_name,
    a.state,
    a.reason,
    a.call_id,
    a.started_at,
    extract(epoch from live.clock() - a.started_at) as state_seconds,
    (a.state = 'ready')::integer as agents_ready,
    (a.state in ('ring', 'dial', 'consult', 'talk', 'hold'))::integer as agents_busy,
    (a.state = 'acw')::integer as agents_acw,
    (a.state = 'pause')::integer as agents_break,
    -- A link for tables: every byte of names is encoded, so that none can end the address.
    '<a href="/boards/live_day/?source=' || live.encoded(a.source) || '&agent_name='
    || live.encoded(a.agent_name) || '">→</a>' as day
from live.agent_states as a
where a.started_at <= live.clock() and a.ended_at > live.clock();

-- Callers who gave up today and whom nobody has talked to since, with their last attempt.
create or replace view bi.live_lost_callers with (security_invoker, security_barrier) as
select
    v.source,
    v.caller_token,
    v.call_id,
    v.queue_id,
    v.queue_name,
    v.team_id,
    v.agent_id,
    v.region_code,
    v.region_name,
    v.entered_at,
    v.wait_seconds,
    v.attempts
from (
    select
        l.*,
        count(*) over (partition by l.source, l.caller_token) as attempts,
        row_number() over (
            partition by l.source, l.caller_token order by l.entered_at desc, l.call_id desc
        ) as place
    from live.queue_visits as l
    inner join live.sources as s on l.source = s.source
    where
        l.calls_abandoned = 1
        and l.short_abandons = 0
        and l.caller_token is not null
        and l.business_day = (live.clock() at time zone s.time_zone)::date
) as v
where
    v.place = 1
    and not exists (
        select from live.queue_visits as later
        where
            later.source = v.source
            and later.caller_token = v.caller_token
            and later.entered_at > v.entered_at
            and (later.calls_answered = 1 or (later.outcome = 'incomplete' and later.is_last))
    );

-- Of an instance whose parts had the last fifteen minutes in them: a view cannot lose columns.
do $$
begin
    if exists (
        select from pg_attribute
        where attrelid = to_regclass('live.parts') and attname = 'calls_offered_15min'
    ) then
        drop view live.parts cascade;
    end if;
end
$$;

-- What adds up to the numbers of the floor: what today has come to, the visits that wait, and the
-- conversations that go on. The totals of a queue are for those who see all of it; others add up the
-- groups of its calls that they see.
create or replace view live.parts with (security_invoker) as
select
    t.source,
    t.queue_id,
    t.team_id,
    t.region_code,
    t.agent_id,
    t.queue_id is not null and t.agent_id is not null as is_group,
    t.queue_name,
    t.target_seconds,
    0 as waiting_now,
    null::numeric as longest_wait_seconds,
    0 as conversations_now,
    t.visits,
    t.calls_offered,
    t.calls_answered,
    t.calls_abandoned,
    t.answered_within_target,
    t.answered_waits,
    t.answered_wait_seconds,
    t.connections_handled,
    t.handle_seconds
from live.day_totals as t
inner join live.sources as s on t.source = s.source
where
    t.business_day = (live.clock() at time zone s.time_zone)::date
    and t.visits + t.connections > 0
union all
select
    v.source,
    v.queue_id,
    v.team_id,
    v.region_code,
    v.agent_id,
    false,
    v.queue_name,
    v.target_seconds,
    1,
    coalesce(v.wait_seconds, extract(epoch from live.clock() - v.entered_at)),
    0,
    -- What waits since yesterday is in no total of today.
    w.before_today,
    w.before_today * v.calls_offered,
    w.before_today * v.calls_answered,
    w.before_today * v.calls_abandoned,
    w.before_today * v.answered_within_target,
    w.before_today * v.answered_waits,
    w.before_today * v.answered_wait_seconds,
    0,
    0
from live.queue_visits as v
inner join live.sources as s on v.source = s.source
cross join lateral (
    select
        (v.business_day < (live.clock() at time zone s.time_zone)::date)::integer as before_today
) as w
where live.waits(v.outcome, v.is_last, v.entered_at)
union all
select
    n.source,
    n.queue_id,
    n.team_id,
    n.region_code,
    n.agent_id,
    false,
    n.queue_name,
    null,
    0,
    null,
    1,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    w.before_today * n.connections_handled,
    w.before_today * n.handle_seconds
from live.conversations as n
inner join live.sources as s on n.source = s.source
cross join lateral (
    select
        (n.business_day < (live.clock() at time zone s.time_zone)::date)::integer as before_today
) as w;

-- Visits of today that have entered in the last fifteen minutes.
create or replace view live.recent_visits with (security_invoker) as
select
    v.source,
    v.queue_id,
    v.team_id,
    v.region_code,
    v.agent_id,
    v.entered_at,
    v.calls_offered,
    v.calls_answered,
    v.calls_abandoned,
    v.answered_within_target
from live.queue_visits as v
inner join live.sources as s on v.source = s.source
where
    v.entered_at > live.clock() - interval '15 minutes'
    -- Of a range the planner expects few rows, even where it knows nothing of them.
    and v.entered_at < live.clock() + interval '1 day'
    and v.business_day = (live.clock() at time zone s.time_zone)::date;

-- Queues of today, with what the last fifteen minutes usually bring.
create or replace view bi.live_queues with (security_invoker, security_barrier) as
with mine as (
    select
        (select sec.sees_all() or pg_has_role(session_user, 'callhouse_owner', 'member')) as is_all,
        (select sec.scope('queue'))::text[] as queues,
        (select sec.names_sources()) as names_sources,
        (select sec.scope('team') || sec.scope('agent'))::text[] = '{}' as reads_totals,
        live.ten_seconds(live.clock() - interval '15 minutes') + interval '10 seconds' as since
),

seen as (
    select * from live.parts
    where queue_id is not null and not is_group
    union all
    select p.*
    from live.parts as p
    cross join mine
    where
        p.is_group
        and not mine.is_all
        and not (
            p.queue_id = any(mine.queues)
            or (mine.names_sources and p.source || '/' || p.queue_id = any(mine.queues))
        )
),

sums as (
    select
        p.source,
        p.queue_id,
        max(p.queue_name) as queue_name,
        sum(p.waiting_now) as waiting_now,
        coalesce(max(p.longest_wait_seconds), 0) as longest_wait_seconds,
        max(p.target_seconds) as target_seconds,
        sum(p.conversations_now) as conversations_now,
        sum(p.calls_offered)::bigint as calls_offered,
        sum(p.calls_answered)::bigint as calls_answered,
        sum(p.calls_abandoned)::bigint as calls_abandoned,
        sum(p.answered_within_target)::bigint as answered_within_target,
        sum(p.answered_waits)::bigint as answered_waits,
        sum(p.answered_wait_seconds) as answered_wait_seconds,
        sum(p.connections_handled)::bigint as connections_handled,
        sum(p.handle_seconds) as handle_seconds
    from seen as p
    group by p.source, p.queue_id
    having sum(p.visits) > 0
),

-- Totals of what has entered since the first ten seconds that lie wholly in the last fifteen minutes,
-- and the visits before. Who sees single teams or agents has visits only.
recent as (
    select
        r.source,
        r.queue_id,
        sum(r.calls_offered)::bigint as calls_offered,
        sum(r.calls_answered)::bigint as calls_answered,
        sum(r.calls_abandoned)::bigint as calls_abandoned,
        sum(r.answered_within_target)::bigint as answered_within_target
    from (
        select
            t.source,
            t.queue_id,
            t.calls_offered,
            t.calls_answered,
            t.calls_abandoned,
            t.answered_within_target
        from live.recent_totals as t
        inner join live.sources as s on t.source = s.source
        cross join mine
        where
            t.starts_at >= mine.since
            and t.business_day = (live.clock() at time zone s.time_zone)::date
            and (mine.is_all or mine.reads_totals)
            and (t.region_code is null) = (
                mine.is_all
                or t.queue_id = any(mine.queues)
                or (mine.names_sources and t.source || '/' || t.queue_id = any(mine.queues))
            )
        union all
        select
            v.source,
            v.queue_id,
            v.calls_offered,
            v.calls_answered,
            v.calls_abandoned,
            v.answered_within_target
        from live.recent_visits as v
        cross join mine
        where
            v.entered_at < case
                when mine.is_all or mine.reads_totals then mine.since else 'infinity'
            end
    ) as r
    group by r.source, r.queue_id
),

-- The quarters of an hour that the last fifteen minutes lie in, each by its share.
usual as (
    select
        source,
        queue_id,
        sum(
            calls_offered * extract(
                epoch from least(interval_start_at + interval '15 minutes', live.clock())
                - greatest(interval_start_at, live.clock() - interval '15 minutes')
            ) / 900
        ) as usual_offered_15min
    from live.usual_quarters
    where
        interval_start_at > live.clock() - interval '30 minutes'
        and interval_start_at < live.clock()
    group by source, queue_id
)

select
    sums.source,
    s.source_name,
    sums.queue_id,
    sums.queue_name,
    sums.waiting_now,
    sums.longest_wait_seconds,
    sums.target_seconds,
    sums.conversations_now,
    sums.calls_offered,
    sums.calls_answered,
    sums.calls_abandoned,
    sums.answered_within_target,
    sums.answered_waits,
    sums.answered_wait_seconds,
    sums.connections_handled,
    sums.handle_seconds,
    coalesce(recent.calls_offered, 0) as calls_offered_15min,
    coalesce(recent.calls_answered, 0) as calls_answered_15min,
    coalesce(recent.calls_abandoned, 0) as calls_abandoned_15min,
    coalesce(recent.answered_within_target, 0) as answered_within_target_15min,
    usual.usual_offered_15min
from sums
inner join live.sources as s on sums.source = s.source
left join recent on sums.source = recent.source and sums.queue_id = recent.queue_id
left join usual on sums.source = usual.source and sums.queue_id = usual.queue_id;

-- The floor in one row per source, as far as the reader sees it, with the banner of a silent lane.
create or replace view bi.live_floor with (security_invoker, security_barrier) as
select
    l.source,
    l.source_name,
    case when l.is_stale then '⚠ STALE' else '● live' end as lane,
    to_char(l.looked_at at time zone s.time_zone, 'HH24:MI:SS') as as_of,
    l.data_age_seconds,
    coalesce(q.waiting_now, 0) as waiting_now,
    coalesce(q.longest_wait_seconds, 0) as longest_wait_seconds,
    coalesce(q.waiting_now, 0) + coalesce(q.conversations_now, 0) as calls_in_progress,
    coalesce(a.agents_ready, 0) as agents_ready,
    coalesce(a.agents_busy, 0) as agents_busy,
    coalesce(a.agents_acw, 0) as agents_acw,
    coalesce(a.agents_break, 0) as agents_break,
    coalesce(q.calls_offered, 0) as calls_offered,
    coalesce(q.calls_answered, 0) as calls_answered,
    coalesce(q.calls_abandoned, 0) as calls_abandoned,
    coalesce(q.answered_within_target, 0) as answered_within_target,
    coalesce(q.answered_waits, 0) as answered_waits,
    q.answered_wait_seconds,
    coalesce(q.connections_handled, 0) as connections_handled,
    q.handle_seconds
from bi.live_sources as l
inner join live.sources as s on l.source = s.source
left join (
    select
        source,
        sum(waiting_now) as waiting_now,
        max(longest_wait_seconds) as longest_wait_seconds,
        sum(conversations_now) as conversations_now,
        sum(calls_offered) as calls_offered,
        sum(calls_answered) as calls_answered,
        sum(calls_abandoned) as calls_abandoned,
        sum(answered_within_target) as answered_within_target,
        sum(answered_waits) as answered_waits,
        sum(answered_wait_seconds) as answered_wait_seconds,
        sum(connections_handled) as connections_handled,
        sum(handle_seconds) as handle_seconds
    from bi.live_queues
    group by source
) as q on l.source = q.source
left join (
    select
        source,
        sum(agents_ready) as agents_ready,
        sum(agents_busy) as agents_busy,
        sum(agents_acw) as agents_acw,
        sum(agents_break) as agents_break
    from bi.live_agents
    group by source
) as a on l.source = a.source;

grant select on
bi.live_queues, bi.live_floor, bi.live_sources, bi.live_queue_visits, bi.live_agent_connections, bi.live_agents,
bi.live_lost_callers, live.conversations, live.parts, live.recent_visits
to callhouse_reader;

-- One row per metric and scope: what alerts are evaluated over. Null: nothing to divide by, or not
-- known. For the pipeline alone: it sees everything.
create or replace view live.metric_values as
with sums as (
    select
        s.scope_type,
        s.scope_id,
        sum(p.waiting_now) as waiting_now,
        max(p.longest_wait_seconds) as longest_wait_seconds,
        sum(p.conversations_now) as conversations_now,
        sum(p.calls_offered) as calls_offered_today,
        sum(p.calls_answered) as calls_answered_today,
        sum(p.calls_abandoned) as calls_abandoned_today,
        sum(p.answered_within_target) as within_today,
        sum(p.answered_waits) as answered_waits,
        sum(p.answered_wait_seconds) as answered_wait_seconds,
        sum(p.connections_handled) as connections_handled,
        sum(p.handle_seconds) as handle_seconds
    from live.parts as p
    -- Totals of a queue are those of its source, too.
    cross join lateral live.scopes(
        case when p.queue_id is not null then p.source end,
        p.queue_id, p.team_id, p.region_code, p.agent_id
    ) as s
    where not p.is_group
    group by s.scope_type, s.scope_id
),

recent as (
    select
        s.scope_type,
        s.scope_id,
        sum(v.calls_answered) as answered_15min,
        sum(v.calls_abandoned) as abandoned_15min,
        sum(v.answered_within_target) as within_15min
    from live.recent_visits as v
    cross join lateral live.scopes(
        v.source, v.queue_id, v.team_id, v.region_code, v.agent_id
    ) as s
    group by s.scope_type, s.scope_id
),

agents as (
    select
        s.scope_type,
        s.scope_id,
        sum(a.agents_ready) as agents_ready,
        sum(a.agents_busy) as agents_busy,
        sum(a.agents_acw) as agents_acw,
        sum(a.agents_break) as agents_break,
        max(a.state_seconds) as state_seconds
    from bi.live_agents as a
    cross join lateral live.scopes(a.source, null, a.team_id, a.region_code, a.agent_id) as s
    group by s.scope_type, s.scope_id
),

ages as (
    select
        s.scope_type,
        s.scope_id,
        max(l.data_age_seconds) as data_age_seconds
    from bi.live_sources as l
    cross join lateral live.scopes(l.source, null, null, null, null) as s
    group by s.scope_type, s.scope_id
),

-- Where nothing happens today there is nothing waiting, and nobody ready, all the same.
scopes as (
    select scope_type, scope_id from sums
    union
    select scope_type, scope_id from agents
    union
    select scope_type, scope_id from ages
    union
    select s.scope_type, s.scope_id
    from live.day_totals as t
    cross join lateral live.scopes(null, t.queue_id, null, t.region_code, null) as s
    where t.visits > 0 and (t.queue_id is null or t.agent_id is null)
    union
    select 'team', team_id from live.agent_states
    union
    select 'agent', agent_id from live.agent_states
)

select
    m.metric,
    scopes.scope_type,
    scopes.scope_id,
    m.value::numeric as value,
    live.clock() as measured_at
from scopes
left join sums on sums.scope_type = scopes.scope_type and sums.scope_id = scopes.scope_id
left join recent on recent.scope_type = scopes.scope_type and recent.scope_id = scopes.scope_id
left join agents on agents.scope_type = scopes.scope_type and agents.scope_id = scopes.scope_id
left join ages on ages.scope_type = scopes.scope_type and ages.scope_id = scopes.scope_id
cross join lateral (
    values
    ('waiting_now', coalesce(sums.waiting_now, 0)),
    ('longest_wait_seconds', coalesce(sums.longest_wait_seconds, 0)),
    (
        'calls_in_progress',
        coalesce(sums.waiting_now, 0) + coalesce(sums.conversations_now, 0)
    ),
    ('agents_ready', coalesce(agents.agents_ready, 0)),
    ('agents_busy', coalesce(agents.agents_busy, 0)),
    ('agents_acw', coalesce(agents.agents_acw, 0)),
    ('agents_break', coalesce(agents.agents_break, 0)),
    ('time_in_state_seconds', agents.state_seconds),
    ('calls_offered_today', coalesce(sums.calls_offered_today, 0)),
    ('calls_answered_today', coalesce(sums.calls_answered_today, 0)),
    ('calls_abandoned_today', coalesce(sums.calls_abandoned_today, 0)),
    (
        'service_level_today',
        sums.within_today::numeric
        / nullif(sums.calls_answered_today + sums.calls_abandoned_today, 0)
    ),
    (
        'service_level_15min',
        recent.within_15min::numeric / nullif(recent.answered_15min + recent.abandoned_15min, 0)
    ),
    (
        'abandon_rate_15min',
        recent.abandoned_15min::numeric
        / nullif(recent.answered_15min + recent.abandoned_15min, 0)
    ),
    (
        'abandon_rate_today',
        sums.calls_abandoned_today::numeric
        / nullif(sums.calls_answered_today + sums.calls_abandoned_today, 0)
    ),
    ('asa_today', sums.answered_wait_seconds / nullif(sums.answered_waits, 0)),
    ('aht_today', sums.handle_seconds / nullif(sums.connections_handled, 0)),
    ('data_age_seconds', ages.data_age_seconds)
) as m (metric, value)
where
    scopes.scope_id <> 'none'
    -- Of waiting calls nobody knows yet whose they will be; of ready agents, for which queue.
    and (
        scopes.scope_type not in ('team', 'agent')
        or m.metric not in ('waiting_now', 'longest_wait_seconds')
    )
    and (scopes.scope_type <> 'queue' or m.metric not like 'agents\_%')
    and (scopes.scope_type = 'agent' or m.metric <> 'time_in_state_seconds')
    and (scopes.scope_type in ('all', 'source') or m.metric <> 'data_age_seconds');

reset role;
