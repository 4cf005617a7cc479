-- Who may see what. Entitlements are history: none is deleted, an ended one keeps its dates. They are
-- read by session_user, because SET ROLE and settings can be forged from SQL. Applied every time.
set role callhouse_owner;

create table if not exists sec.people (
    person text primary key,     -- also the name of the Postgres login and of the Superset user
    label text not null,
    is_demo boolean not null default false
);
-- The kind of reader: decides on the tools, and whether the ledger and the trail are theirs to read.
alter table sec.people add column if not exists level text not null default 'manager';
-- What goes beyond the level: export, edit, admin.
alter table sec.people add column if not exists rights text[] not null default '{}';
alter table sec.people add column if not exists managed_by text not null default 'command';
alter table sec.people add column if not exists closed_at timestamptz;
do $$
begin
    if not exists (
        select from pg_constraint
        where conrelid = 'sec.people'::regclass and conname = 'people_vocabulary'
    ) then
        alter table sec.people add constraint people_vocabulary check (
            level in ('agent', 'lead', 'manager', 'executive', 'analyst', 'engineer', 'auditor')
            and rights <@ array['export', 'edit', 'admin']
            and managed_by in ('command', 'file')
        );
    end if;
end
$$;

create table if not exists sec.entitlement (
    person text not null references sec.people,
    scope_type text not null check (scope_type in ('all', 'region', 'team', 'queue', 'agent')),
    scope_id text not null,
    mask_level text not null default 'masked' check (mask_level in ('masked', 'token', 'aggregate')),
    valid tstzrange not null default tstzrange(now(), null),
    granted_by text not null,
    reason text not null,
    granted_at timestamptz not null default now(),
    primary key (person, scope_type, scope_id, valid)
);
alter table sec.entitlement add column if not exists revoked_by text;
alter table sec.entitlement add column if not exists revoke_reason text;
alter table sec.entitlement add column if not exists managed_by text not null default 'command';
do $$
begin
    -- Validity was kept by days: what was revoked on the day of its grant would leave no trace.
    if (
        select atttypid from pg_attribute
        where attrelid = 'sec.entitlement'::regclass and attname = 'valid'
    ) = 'daterange'::regtype then
        alter table sec.entitlement alter column valid drop default;
        alter table sec.entitlement alter column valid type tstzrange
        using tstzrange(lower(valid)::timestamptz, upper(valid)::timestamptz);
        alter table sec.entitlement alter column valid set default tstzrange(now(), null);
    end if;
    if not exists (
        select from pg_constraint
        where conrelid = 'sec.entitlement'::regclass and conname = 'entitlement_shape'
    ) then
        alter table sec.entitlement add constraint entitlement_shape check (
            not isempty(valid)
            and (scope_type = 'all') = (scope_id = '*')
            and length(trim(reason)) > 0
            -- An aggregate is of everybody's calls: of a few it would tell of persons.
            and (mask_level <> 'aggregate' or scope_type = 'all')
        );
    end if;
end
$$;

-- A trigger instead of an exclusion constraint: that needs an extension which not every server has.
create or replace function sec.keep_history() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    if tg_op = 'DELETE' or tg_op = 'TRUNCATE' then
        raise exception 'entitlements are history: end one instead of deleting it';
    end if;
    perform 1 from sec.people where person = new.person for update;
    if tg_op = 'UPDATE' then
        if (new.person, new.scope_type, new.scope_id, new.mask_level, new.granted_by, new.reason,
            new.granted_at, new.managed_by, lower(new.valid))
            is distinct from
            (old.person, old.scope_type, old.scope_id, old.mask_level, old.granted_by, old.reason,
            old.granted_at, old.managed_by, lower(old.valid))
            or not new.valid <@ old.valid
            or old.revoked_by is not null
        then
            raise exception 'an entitlement can only be ended, and only once';
        end if;
    elsif exists (
        select from sec.entitlement as e
        where
            e.person = new.person
            and e.scope_type = new.scope_type
            and e.scope_id = new.scope_id
            and e.valid && new.valid
    ) then
        raise exception '% has % % already within that time', new.person, new.scope_type, new.scope_id
            using errcode = 'exclusion_violation';
    end if;
    return new;
end
$$;
create or replace trigger keep_history before insert or update or delete on sec.entitlement
for each row execute function sec.keep_history();
create or replace trigger keep_whole before truncate on sec.entitlement
for each statement execute function sec.keep_history();

-- What holds now for the connected login. By the statement's clock: in a transaction that stays open
-- `now()` would hold on to what was revoked meanwhile.
create or replace view sec.mine with (security_barrier) as
select
    e.scope_type,
    e.scope_id,
    e.mask_level
from sec.entitlement as e
inner join sec.people as p on e.person = p.person
where e.person = session_user and p.closed_at is null and e.valid @> statement_timestamp();

-- Scopes whose calls the login may see one by one. Safe for parallel plans, as all below that policies
-- call: each is asked once by the leader, and one that is not would keep every query on one core. In
-- PL/pgSQL, as all that policies of calls ask: a connection plans its body once, and not in each
-- statement, which is a fifth of the time.
create or replace function sec.scope(wanted text) returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog as $$
begin
    return (
        select coalesce(array_agg(scope_id), '{}')
        from sec.mine
        where scope_type = wanted and mask_level <> 'aggregate'
    );
end
$$;

-- Whether one of its scopes is of one source only, as `site_a/101`: two exchanges may both have an
-- agent 101.
create or replace function sec.names_sources() returns boolean
language plpgsql stable parallel safe security definer set search_path = pg_catalog as $$
begin
    return exists (
        select from sec.mine
        where scope_type <> 'all' and mask_level <> 'aggregate' and strpos(scope_id, '/') > 0
    );
end
$$;

-- These scopes, as `agent=site_a/101`.
create or replace function sec.named_scopes() returns text[]
language plpgsql stable parallel safe security definer set search_path = pg_catalog as $$
begin
    return (
        select coalesce(array_agg(scope_type || '=' || scope_id), '{}')
        from sec.mine
        where scope_type <> 'all' and mask_level <> 'aggregate' and strpos(scope_id, '/') > 0
    );
end
$$;

create or replace function sec.sees_all() returns boolean
language plpgsql stable parallel safe security definer set search_path = pg_catalog as $$
begin
    return exists (select from sec.mine where scope_type = 'all' and mask_level <> 'aggregate');
end
$$;

-- Groups that are too large to tell of a person.
create or replace function sec.sees_aggregates() returns boolean
language sql stable parallel safe security definer set search_path = pg_catalog as $$
    select exists (select from sec.mine where scope_type = 'all')
$$;

-- Who may have a caller's number shown, until when and why. History as entitlements are.
create table if not exists sec.unmask_grant (
    grant_id bigint generated always as identity primary key,
    person text not null references sec.people,
    caller_token uuid,           -- null: every caller that the person sees
    valid tstzrange not null,
    granted_by text not null,
    reason text not null check (length(trim(reason)) > 0),
    granted_at timestamptz not null default now(),
    ended_by text,
    end_reason text,
    check (not isempty(valid) and lower(valid) >= granted_at),
    check (upper(valid) - lower(valid) <= interval '24 hours') -- without an end it is null
);
create or replace function sec.keep_unmask_grants() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    if tg_op = 'DELETE' or tg_op = 'TRUNCATE' then
        raise exception 'grants are history: end one instead of deleting it';
    end if;
    if tg_op = 'INSERT' then
        new.granted_at := now();
        if upper_inf(new.valid) then
            raise exception 'a grant to unmask has an end';
        end if;
        return new;
    end if;
    -- Rotation and erasure give callers other tokens; everything else stays.
    if (new.grant_id, new.person, new.granted_by, new.reason, new.granted_at, lower(new.valid))
        is distinct from
        (old.grant_id, old.person, old.granted_by, old.reason, old.granted_at, lower(old.valid))
        or (new.caller_token is null) <> (old.caller_token is null)
        or not new.valid <@ old.valid
        or (
            old.ended_by is not null
            and (new.valid, new.ended_by, new.end_reason)
            is distinct from (old.valid, old.ended_by, old.end_reason)
        )
    then
        raise exception 'a grant to unmask can only be ended, and only once';
    end if;
    return new;
end
$$;
create or replace trigger keep_history before insert or update or delete on sec.unmask_grant
for each row execute function sec.keep_unmask_grants();
create or replace trigger keep_whole before truncate on sec.unmask_grant
for each statement execute function sec.keep_unmask_grants();

-- Whether the login may see masks. Who also has an entitlement with tokens may not: beside a token
-- a mask would tell of every call with it.
create or replace function sec.sees_masks() returns boolean
language sql stable parallel safe security definer set search_path = pg_catalog as $$
    select coalesce(bool_or(mask_level = 'masked') and not bool_or(mask_level = 'token'), false)
    from sec.mine
$$;

-- The masked caller of a call that the login may see by an entitlement with masks; else null. What
-- the call is of is looked up here: who asks could say anything. plpgsql, because the table is made
-- later, and for its plan that is kept.
create or replace function sec.masked_caller(wanted_day date, wanted_call text) returns text
language plpgsql stable security definer set search_path = pg_catalog as $$
begin
    return (
        select k.masked
        from marts.fct_calls as c
        inner join pii.callers as k on c.caller_token = k.caller_token
        where
            c.business_day = wanted_day
            and c.call_key = wanted_call
            and (
                select
                    bool_or(
                        m.mask_level = 'masked' and case m.scope_type
                            when 'all' then true
                            when 'region' then m.scope_id in (c.region_code, c.source || '/' || c.region_code)
                            when 'team' then m.scope_id in (c.team_id, c.source || '/' || c.team_id)
                            when 'queue' then m.scope_id in (c.queue_id, c.source || '/' || c.queue_id)
                            when 'agent' then m.scope_id in (c.agent_id, c.source || '/' || c.agent_id)
                        end
                    )
                    and not bool_or(m.mask_level = 'token')
                from sec.mine as m
            )
    );
end
$$;

-- The ledger tells of all calls: it is for those who see all of them or keep the pipeline.
create or replace function sec.reads_ledger() returns boolean
language sql stable parallel safe security definer set search_path = pg_catalog as $$
    select
        sec.sees_all()
        or pg_has_role(session_user, 'callhouse_owner', 'member')
        or exists (
            select from sec.people
            where person = session_user and level = 'engineer' and closed_at is null
        )
$$;

revoke execute on all functions in schema sec from public;
grant execute on function
sec.scope(text), sec.names_sources(), sec.named_scopes(), sec.sees_all(), sec.sees_aggregates(),
sec.reads_ledger(), sec.sees_masks(),
sec.masked_caller(date, text)
to callhouse_reader, callhouse_pipeline;

reset role;

-- ---------------------------------------------------------------- what every login could do
-- Functions that run a text as a query, write, or tell of relations that the reader cannot read.
-- They are the server's own, open to everybody: closed in this database, not for its superuser.
do $$
declare
    closed record;
begin
    for closed in
        select p.oid::regprocedure as signature
        from pg_proc as p
        where
            p.pronamespace = 'pg_catalog'::regnamespace
            and (
                p.proname ~ '^(query|cursor|table|schema|database)_to_xml'
                or p.proname ~ '^(lo_|loread$|lowrite$)'
                or p.proname ~ '^pg_stat_get_(live_|dead_|tuples_|ins_|mod_|numscans|blocks_)'
                or p.proname ~ '^pg_(relation|table|total_relation|indexes|database|tablespace)_size$'
                or p.proname in (
                    'ts_stat', 'pg_notify', 'pg_export_snapshot', 'pg_logical_emit_message',
                    'pg_current_wal_lsn', 'pg_stat_get_xact_tuples_returned'
                )
            )
    loop
        execute format('revoke execute on function %s from public', closed.signature);
        execute format('grant execute on function %s to callhouse_owner', closed.signature);
    end loop;
    -- Advisory locks of the pipeline: a reader who took one would stop every publication.
    for closed in
        select p.oid::regprocedure as signature from pg_proc as p
        where p.pronamespace = 'pg_catalog'::regnamespace and p.proname ~ '^pg_(try_)?advisory_'
    loop
        execute format('revoke execute on function %s from public', closed.signature);
        execute format('grant execute on function %s to callhouse_owner', closed.signature);
    end loop;
end
$$;
-- Row counts of the planner and of the statistics, sequences' last values.
revoke select on
pg_stat_all_tables, pg_stat_user_tables, pg_stat_xact_all_tables, pg_stat_xact_user_tables,
pg_stat_all_indexes, pg_stat_user_indexes, pg_statio_all_tables, pg_statio_user_tables,
pg_statio_all_indexes, pg_statio_user_indexes, pg_stats, pg_stats_ext, pg_stats_ext_exprs,
pg_sequences, pg_stat_database
from public;
grant select on
pg_stat_all_tables, pg_stat_user_tables, pg_stats, pg_statio_user_tables, pg_stat_user_indexes
to callhouse_owner;
