-- The audit trail: who did what, when and from where, each entry chained to the one before it.
-- Idempotent. `callhouse.security.trail` fills it, and knows how an entry is hashed, so that verify
-- needs no function of a database that may have been changed.
create schema if not exists trail authorization callhouse_trail_owner;
revoke all on schema trail from public;
grant usage on schema trail to callhouse_trail;
grant connect on database callhouse to callhouse_trail;


-- No login is a member of this role: an entry is written by append alone.
set role callhouse_trail_owner;

create table if not exists trail.entries (
    entry_id bigint primary key check (entry_id > 0), -- from 1, without gaps
    happened_at timestamptz not null,
    recorded_at timestamptz not null,
    person text,                     -- login, Superset or Airflow user, account of the system
    origin text not null
    check (origin in ('postgres', 'superset', 'airflow', 'dbt', 'callhouse')),
    address text,
    program text,                    -- that asked, as it names itself
    action text not null,
    object_name text,
    statement text,                  -- what looks like a caller is masked
    row_count bigint,
    is_export boolean not null,
    outcome text not null,
    source_position text not null unique, -- where it was read: the same place is taken once
    previous_hash bytea not null,
    hash bytea not null
);
create index if not exists entries_happened_at on trail.entries (happened_at);

-- How far each source has been read.
create table if not exists trail.positions (
    source text primary key,
    position jsonb not null,
    read_at timestamptz not null
);

create or replace function trail.refuse() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception 'entries of the audit trail are added, never changed or removed'
        using errcode = 'insufficient_privilege';
end
$$;
create or replace trigger entries_are_kept
before update or delete or truncate on trail.entries
for each statement execute function trail.refuse();
-- In a session that replays a replica, too.
alter table trail.entries enable always trigger entries_are_kept;

create or replace function trail.instant(moment timestamptz) returns text
language sql immutable set search_path = pg_catalog as $$
    select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- Adds entries (an array of objects named as the columns) in their order and notes how far their
-- source has been read, in one transaction. Returns how many were new.
create or replace function trail.append(
    read_source text, read_position jsonb, new_entries jsonb
) returns bigint
language plpgsql security definer set search_path = pg_catalog as $$
declare
    added bigint := 0;
    last_id bigint;
    last_hash bytea;
    item jsonb;
    entry trail.entries;
begin
    -- Not an advisory lock: any login could hold that one and stop the trail.
    lock table trail.entries in share row exclusive mode;
    select e.entry_id, e.hash into last_id, last_hash
    from trail.entries as e order by e.entry_id desc limit 1;
    if not found then
        last_id := 0;
        last_hash := decode(repeat('00', 32), 'hex');
    end if;
    for item in
        select given.element
        from jsonb_array_elements(new_entries) with ordinality as given (element, place)
        order by given.place
    loop
        entry := jsonb_populate_record(null::trail.entries, item);
        continue when exists (
            select from trail.entries as e where e.source_position = entry.source_position
        );
        entry.entry_id := last_id + 1;
        entry.recorded_at := clock_timestamp();
        entry.previous_hash := last_hash;
        entry.hash := sha256(last_hash || convert_to(jsonb_build_array(
            entry.entry_id, trail.instant(entry.happened_at), trail.instant(entry.recorded_at),
            entry.person, entry.origin, entry.address, entry.program, entry.action,
            entry.object_name, entry.statement, entry.row_count, entry.is_export, entry.outcome,
            entry.source_position
        )::text, 'UTF8'));
        insert into trail.entries select entry.*;
        last_id := entry.entry_id;
        last_hash := entry.hash;
        added := added + 1;
    end loop;
    insert into trail.positions (source, position, read_at)
    values (read_source, read_position, now())
    on conflict (source) do update
    set position = excluded.position, read_at = excluded.read_at;
    return added;
end
$$;

do $$
declare
    own record;
begin
    -- Not `all functions`: those that read the log are the superuser's from the second time on.
    for own in
        select p.oid::regprocedure as signature from pg_proc as p
        where
            p.pronamespace = 'trail'::regnamespace
            and p.proowner = 'callhouse_trail_owner'::regrole
    loop
        execute format('revoke execute on function %s from public', own.signature);
    end loop;
end
$$;
grant execute on function trail.append(text, jsonb, jsonb) to callhouse_trail;
grant select on trail.entries, trail.positions to callhouse_trail;

reset role;

-- ---------------------------------------------------------------- the server's log
-- Of the superuser, because only it may read files: nothing but the log's, and for one login.
create or replace function trail.log_files() returns table (file text, bytes bigint)
language plpgsql stable security definer set search_path = pg_catalog as $$
begin
    if current_setting('logging_collector') = 'on' then
        return query select l.name, l.size from pg_ls_logdir() as l where l.name ~ '\.json$';
    end if;
end
$$;

create or replace function trail.read_log(file text, start_at bigint, bytes bigint) returns bytea
language plpgsql stable security definer set search_path = pg_catalog as $$
begin
    if file !~ '^[A-Za-z0-9_-][A-Za-z0-9_.-]*\.json$' then
        raise exception '% is no log', file;
    end if;
    return pg_read_binary_file(
        current_setting('log_directory') || '/' || file, start_at, bytes, true
    );
end
$$;

revoke execute on function trail.log_files(), trail.read_log(text, bigint, bigint) from public;
grant execute on function trail.log_files(), trail.read_log(text, bigint, bigint)
to callhouse_trail;

-- Background work of Superset; people's logins get it from callhouse.security.people.
alter role callhouse_superset set log_min_duration_statement = 0;
-- So that `./callhouse psql` can have its statements logged.
grant set on parameter log_min_duration_statement to callhouse_pipeline;

grant usage on schema ops to callhouse_trail;
grant select on ops.builds to callhouse_trail;

-- ---------------------------------------------------------------- who reads it
create or replace function sec.reads_trail() returns boolean
language sql stable security definer set search_path = pg_catalog as $$
    select exists (
        select from sec.people where person = session_user and level = 'auditor' and closed_at is null
    )
$$;
alter function sec.reads_trail() owner to callhouse_owner;
revoke execute on function sec.reads_trail() from public;
grant execute on function sec.reads_trail() to callhouse_reader;

alter table trail.entries enable row level security, force row level security;
drop policy if exists appending on trail.entries;
create policy appending on trail.entries to callhouse_trail_owner using (true) with check (true);
drop policy if exists collecting on trail.entries;
create policy collecting on trail.entries for select to callhouse_trail using (true);
drop policy if exists auditing on trail.entries;
create policy auditing on trail.entries for select to callhouse_reader
using ((select sec.reads_trail()));
grant usage on schema trail to callhouse_reader;
grant select (
    entry_id,
    happened_at,
    recorded_at,
    person,
    origin,
    address,
    program,
    action,
    object_name,
    statement,
    row_count,
    is_export,
    outcome
) on trail.entries to callhouse_reader;

create or replace view bi.fct_access_audit with (security_invoker = true) as
select
    entry_id,
    happened_at,
    recorded_at,
    person,
    origin,
    address,
    program,
    action,
    object_name,
    statement,
    row_count,
    is_export,
    outcome
from trail.entries;
alter view bi.fct_access_audit owner to callhouse_owner;
grant select on bi.fct_access_audit to callhouse_reader;
comment on view bi.fct_access_audit is
'One row per access, log-in, refusal or command: who, when, from where, what, with which outcome.';
