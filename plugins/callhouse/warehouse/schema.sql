-- Schemas, roles and the pipeline's own tables. Idempotent: `make up` applies it every time.
-- Runs as superuser in the warehouse database. Roles and their passwords are made by __init__.py.

create schema if not exists staging authorization callhouse_owner;
create schema if not exists ops authorization callhouse_owner;
create schema if not exists pii authorization callhouse_owner;
create schema if not exists sec authorization callhouse_owner;
create schema if not exists marts authorization callhouse_owner;
create schema if not exists bi authorization callhouse_owner;
create schema if not exists reference authorization callhouse_owner;
create schema if not exists intake authorization callhouse_owner;
create schema if not exists candidate authorization callhouse_owner;
create schema if not exists mart_rows authorization callhouse_owner;

revoke all on schema public from public;
revoke temporary, create on database callhouse from public;
grant temporary on database callhouse to callhouse_owner;
grant usage on schema bi, sec to callhouse_reader;

set role callhouse_owner;

-- ---------------------------------------------------------------- landing
create table if not exists ops.sources (
    source text primary key,
    vendor text not null,
    label text not null,
    time_zone text not null
);
-- What is open without a recorded end lasts to the newest event; landing moves it forward only.
alter table ops.sources add column if not exists newest_event_at timestamptz;
-- False: on the live floor only (`marts: false`), so that none of its rows is built.
alter table ops.sources add column if not exists is_for_marts boolean not null default true;
create or replace view mart_rows.sources as select * from ops.sources where is_for_marts;

create table if not exists ops.units (
    unit_id bigint generated always as identity primary key,
    source text not null references ops.sources,
    record text not null,
    kind text not null default 'file' check (kind in ('file', 'tail', 'page')),
    name text not null,
    content_hash text not null,
    size_bytes bigint not null,
    status text not null check (status in ('landed', 'refused')),
    read_rows bigint not null default 0,
    staged_rows bigint not null default 0,
    quarantined_rows bigint not null default 0,
    duplicate_rows bigint not null default 0,
    header_rows bigint not null default 0,
    first_day date,
    last_day date,
    notes text[] not null default '{}',
    reason text,
    landed_at timestamptz not null default now(),
    constraint units_balance check (read_rows = staged_rows + quarantined_rows + duplicate_rows)
);
-- What a single row of the unit needs to be read again: its feed, and what only the file told.
alter table ops.units add column if not exists feed text;
alter table ops.units add column if not exists layout jsonb;
do $$
begin
    if not exists (
        select from pg_constraint
        where conrelid = 'ops.units'::regclass and conname = 'units_kind_check'
        and pg_get_constraintdef(oid) like '%push%'
    ) then
        alter table ops.units drop constraint if exists units_kind_check;
        alter table ops.units add constraint units_kind_check
        check (kind in ('file', 'tail', 'page', 'push'));
    end if;
end $$;
-- A refused file may come again, after its mapping was mended; a landed one may not. The hash of a
-- page names the unit before it as well: going back to an older content is a change.
create unique index if not exists units_once
on ops.units (source, record, content_hash) where status = 'landed';
-- The newest unit of a record: pushes ask for its columns.
create index if not exists units_newest
on ops.units (source, record, unit_id) where status = 'landed';

-- Objects of object storage that were read, so that none is fetched again to find it known.
create table if not exists ops.landed_objects (
    source text not null references ops.sources,
    address text not null,
    version text not null,   -- as the storage names it; another one is another content
    unit_id bigint not null references ops.units,
    primary key (source, address)
);

create table if not exists ops.unit_days (
    unit_id bigint not null references ops.units,
    business_day date not null,
    staged_rows bigint not null,
    primary key (unit_id, business_day)
);

-- Old days of staging that lie in files (callhouse.landing.cold). Of one that was read back the
-- row stays, until the day is archived again.
create table if not exists ops.staging_archives (
    table_name text not null,   -- in schema staging
    business_day date not null,
    file text not null,         -- below `cold/` of the home
    row_count bigint not null,
    file_bytes bigint not null,
    checksum text not null,     -- of all values, whatever order the rows have
    sha256 text not null,       -- of the file
    columns jsonb not null,     -- names and types, in the order of the checksum
    archived_at timestamptz not null default now(),
    archived_by text not null,
    restored_at timestamptz,
    primary key (table_name, business_day)
);

create table if not exists ops.quarantine (
    unit_id bigint not null references ops.units,
    line_number bigint not null,
    reason_code text not null,
    reason text not null,
    column_name text,
    preview text not null,   -- digits of numbers masked
    content bytea not null,  -- the row's bytes, encrypted with the caller key
    primary key (unit_id, line_number)
);
-- A row is open until a person says why it needs no reading, or it was read again; it stays stored
-- either way. Once replayed, it is counted in its unit's staged or duplicate rows.
alter table ops.quarantine add column if not exists discarded_at timestamptz;
alter table ops.quarantine add column if not exists discarded_by text;
alter table ops.quarantine add column if not exists discard_reason text;
alter table ops.quarantine add column if not exists replayed_at timestamptz;
alter table ops.quarantine add column if not exists replayed_by text;
alter table ops.quarantine add column if not exists replayed_as text;   -- staged | duplicate
do $$
begin
    if not exists (
        select from pg_constraint
        where conrelid = 'ops.quarantine'::regclass and conname = 'quarantine_replay'
    ) then
        alter table ops.quarantine add constraint quarantine_replay check (
            num_nonnulls(replayed_at, replayed_by, replayed_as) in (0, 3)
            and (replayed_at is null or discarded_at is null)
            and replayed_as in ('staged', 'duplicate')
        );
    end if;
    if not exists (
        select from pg_constraint
        where conrelid = 'ops.quarantine'::regclass and conname = 'quarantine_discard'
    ) then
        alter table ops.quarantine add constraint quarantine_discard check (
            num_nonnulls(discarded_at, discarded_by, discard_reason) in (0, 3)
        );
    end if;
end
$$;

-- The ledger by source: read = staged + open + discarded + duplicates, or a row was lost.
create or replace view ops.source_ledger as
select
    s.source,
    coalesce(u.read_rows, 0) as read_rows,
    coalesce(u.staged_rows, 0) as staged_rows,
    coalesce(q.open_rows, 0) as open_rows,
    coalesce(q.discarded_rows, 0) as discarded_rows,
    coalesce(u.duplicate_rows, 0) as duplicate_rows,
    coalesce(u.refused_files, 0) as refused_files,
    u.newest_day,
    u.landed_at,
    coalesce(q.replayed_rows, 0) as replayed_rows   -- of those staged or duplicate
from ops.sources as s
left join (
    select
        source,
        sum(read_rows)::bigint as read_rows,
        sum(staged_rows)::bigint as staged_rows,
        sum(duplicate_rows)::bigint as duplicate_rows,
        count(*) filter (where status = 'refused') as refused_files,
        max(last_day) filter (where record <> 'schedules') as newest_day,  -- plans reach ahead
        max(landed_at) as landed_at
    from ops.units
    group by source
) as u on s.source = u.source
left join (
    select
        u.source,
        count(*) filter (
            where q.discarded_at is null and q.replayed_at is null
        ) as open_rows,
        count(q.discarded_at) as discarded_rows,
        count(q.replayed_at) as replayed_rows
    from ops.quarantine as q
    inner join ops.units as u on q.unit_id = u.unit_id
    group by u.source
) as q on s.source = q.source;

-- Codes seen in landed rows, so that a dimension never depends on which days are being built.
create table if not exists staging.members (
    source text not null,
    kind text not null,
    code text not null,
    primary key (source, kind, code)
);

-- What marts are built of and audited against: `mart_rows.<table>` is `staging.<table>` without the
-- days of sources that are on the floor only. These stand in it as literals, so that statistics
-- still count. Makes what is missing; with `anew` also what reads other sources or columns now.
create or replace function ops.make_mart_rows(anew boolean) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    floor_only text := (
        select format(' where source <> all (%L::text[])', array_agg(source order by source))
        from ops.sources
        where not is_for_marts
        having count(*) > 0
    );
    t record;
begin
    for t in
        select
            c.relname as name,
            v.oid is null as is_missing,
            obj_description(v.oid) as made_of,
            o.condition,
            md5(
                concat(o.condition, (
                    select string_agg(a.attname, ',' order by a.attnum)
                    from pg_attribute as a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                ))
            ) as wanted
        from pg_class as c
        cross join lateral (
            select case c.relkind when 'p' then floor_only end as condition
        ) as o
        left join pg_class as v
            on v.relnamespace = 'mart_rows'::regnamespace and c.relname = v.relname
        where
            c.relnamespace = 'staging'::regnamespace
            and c.relkind in ('r', 'p')
            and not c.relispartition
        order by c.relname
    loop
        continue when not t.is_missing and (not anew or t.made_of is not distinct from t.wanted);
        execute format(
            'create or replace view mart_rows.%1$I as select * from staging.%1$I%2$s',
            t.name, t.condition
        );
        execute format('comment on view mart_rows.%I is %L', t.name, t.wanted);
    end loop;
end
$$;

create table if not exists pii.callers (
    caller_token uuid primary key,
    key_version smallint not null,
    kind text not null check (kind in ('phone', 'id')),
    content bytea not null   -- the number or id, encrypted
);
-- A caller is there before its rows are: until these are committed it is nobody's.
alter table pii.callers add column if not exists added_at timestamptz not null default now();

-- What went because it was older than its class is kept (callhouse.security.retention).
create table if not exists ops.retention_runs (
    run_id bigint generated always as identity primary key,
    class text not null,
    ran_at timestamptz not null,
    ran_by text not null,
    kept_days integer not null,
    kept_from timestamptz not null,  -- what is older went
    removed bigint not null,
    problem text                     -- why it could not be done
);
create index if not exists retention_runs_class on ops.retention_runs (class, run_id);

-- What those may see who see masks: 138****1234. Filled in once for callers from before it was kept.
alter table pii.callers add column if not exists masked text;

-- Which versions of the keys there were; the newest of a purpose is in use. The keys are outside.
create table if not exists pii.key_versions (
    purpose text not null check (purpose in ('token', 'encryption')),
    version smallint not null check (version > 0),
    used_from timestamptz not null default now(),
    rotated_by text not null,
    primary key (purpose, version)
);
insert into pii.key_versions (purpose, version, rotated_by)
values ('token', 1, 'callhouse'), ('encryption', 1, 'callhouse')
on conflict do nothing;

-- Callers that were erased: what landing puts in the place of their token when they come again. A
-- keyed digest of the number, under a key that is never rotated: the number is gone.
create table if not exists pii.erased_callers (
    pseudonym uuid primary key,
    erased_at timestamptz not null default now(),
    erased_by text not null,
    reason text not null
);

-- ---------------------------------------------------------------- dirty days and builds
-- Two lanes: `facts` of a day are a function of what is staged for it, `followups` of the published
-- calls around it. A day is dirty, built, held and published in each lane by itself.
create table if not exists ops.builds (
    build_id bigint generated always as identity primary key,
    lane text not null default 'facts' check (lane in ('facts', 'followups')),
    status text not null default 'claimed'
    check (status in ('claimed', 'built', 'audited', 'published', 'held', 'abandoned', 'failed')),
    started_at timestamptz not null default now(),
    built_at timestamptz,
    audited_at timestamptz,
    published_at timestamptz,
    problem text
);

-- Whose candidates the candidate schema holds. Unlogged as they are: a crash empties all of them.
create unlogged table if not exists ops.built_candidates (build_id bigint primary key);

create table if not exists ops.build_days (
    build_id bigint not null references ops.builds,
    business_day date not null,
    is_held boolean not null default false,
    reason text,
    primary key (build_id, business_day)
);

create table if not exists ops.dirty_marks (
    mark_id bigint generated always as identity primary key,
    business_day date not null,
    unit_id bigint references ops.units,
    reason text not null,
    marked_at timestamptz not null default now(),
    build_id bigint references ops.builds,
    lane text not null default 'facts' check (lane in ('facts', 'followups')),
    batch_limit integer   -- days that may be built together, after a larger build failed
);
create index if not exists dirty_marks_build on ops.dirty_marks (build_id);

-- The published relations, as their dbt contracts describe them (filled by callhouse.transform).
create table if not exists ops.marts (
    relation text primary key,
    columns text[] not null,
    primary_key text[] not null,
    is_by_day boolean not null,
    lane text not null default 'facts' check (lane in ('facts', 'followups')),
    contract text not null
);

create table if not exists ops.seals (
    build_id bigint not null references ops.builds,
    relation text not null,
    business_day date not null,   -- '-infinity' for relations that are not kept by day
    row_count bigint not null,
    checksum numeric not null,
    primary key (build_id, relation, business_day)
);

create table if not exists ops.publications (
    build_id bigint not null references ops.builds,
    relation text not null,
    deleted_rows bigint not null,
    inserted_rows bigint not null,
    primary key (build_id, relation)
);

create table if not exists ops.published_days (
    business_day date not null,
    lane text not null default 'facts' check (lane in ('facts', 'followups')),
    build_id bigint not null references ops.builds,
    revision integer not null,
    published_at timestamptz not null,
    primary key (business_day, lane)
);

create table if not exists ops.held_days (
    business_day date not null,
    lane text not null default 'facts' check (lane in ('facts', 'followups')),
    build_id bigint not null references ops.builds,
    reason text not null,
    held_at timestamptz not null default now(),
    primary key (business_day, lane)
);

-- How far each source's published calls reach, as the marks of follow-ups last took it into account.
create table if not exists ops.source_horizons (
    source text primary key references ops.sources,
    newest_arrival_at timestamptz
);

-- Instances that were made before there were follow-ups have one lane.
do $$
declare
    relation text;
begin
    foreach relation in array array['builds', 'dirty_marks', 'marts', 'published_days', 'held_days']
    loop
        execute format(
            'alter table ops.%I add column if not exists lane text not null default %L '
            'check (lane in (%L, %L))', relation, 'facts', 'facts', 'followups'
        );
        if relation in ('published_days', 'held_days') and exists (
            select from pg_constraint
            where
                conrelid = format('ops.%I', relation)::regclass
                and contype = 'p'
                and cardinality(conkey) = 1
        ) then
            execute format(
                'alter table ops.%1$I drop constraint %2$I, add primary key (business_day, lane)',
                relation, relation || '_pkey'
            );
        end if;
    end loop;
end
$$;

create table if not exists ops.model_results (
    build_id bigint not null references ops.builds,
    node text not null,
    status text not null,
    seconds double precision not null,
    affected_rows bigint,
    failures bigint,
    message text,
    recorded_at timestamptz not null default now()
);
create index if not exists model_results_build on ops.model_results (build_id);

create table if not exists ops.expectation_results (
    result_id bigint generated always as identity primary key,
    build_id bigint references ops.builds,
    boundary text not null check (boundary in ('staging', 'marts')),
    suite text not null,
    expectation text not null,
    column_name text,
    severity text not null check (severity in ('fail', 'warn')),
    is_success boolean not null,
    observed text,
    failing_days date[] not null default '{}',
    note text not null,
    checked_at timestamptz not null default now()
);

-- What a day holds on both sides of a hop or a balance, by source, written when a build is sealed.
-- `checksum` is a sum over the keys of the rows, so it does not depend on their order.
create table if not exists ops.balances (
    build_id bigint not null references ops.builds,
    business_day date not null,
    source text not null,
    balance text not null,   -- a fact against what it is made from, or the name of a balance
    left_count bigint not null,
    right_count bigint not null,
    left_checksum numeric not null default 0,
    right_checksum numeric not null default 0,
    primary key (build_id, business_day, source, balance)
);

-- What readers were told of a day and source by each build: the totals of both versions.
create table if not exists ops.day_totals (
    build_id bigint not null references ops.builds,
    business_day date not null,
    source text not null,
    calls bigint not null,
    calls_offered bigint not null,
    calls_answered bigint not null,
    calls_abandoned bigint not null,
    handle_seconds numeric not null,
    primary key (build_id, business_day, source)
);

-- A day whose published numbers were changed after it had ended.
create table if not exists ops.restatements (
    business_day date not null,
    revision integer not null,
    build_id bigint not null references ops.builds,
    previous_build_id bigint not null references ops.builds,
    restated_at timestamptz not null default now(),
    reason text not null,
    primary key (business_day, revision)
);

-- A person's word that a held day is right as it was built: it holds for these rows and failures.
create table if not exists ops.releases (
    release_id bigint generated always as identity primary key,
    business_day date not null,
    lane text not null check (lane in ('facts', 'followups')),
    build_id bigint not null references ops.builds,
    expectations text[] not null,
    reason text not null,
    released_by text not null,
    released_at timestamptz not null default now()
);

-- What the seal of a build counts a fact against: relation and key columns of schema candidate.
alter table ops.marts add column if not exists counted_against text;
alter table ops.marts add column if not exists counted_by text[];

-- The marks that can be worked on: a day of which only plans are known waits until it has begun.
create or replace view ops.due_marks as
select
    m.business_day,
    m.lane,
    m.marked_at,
    m.batch_limit
from ops.dirty_marks as m
where
    m.lane <> 'facts'
    or m.reason not like '% schedules'  -- landed or replayed
    or m.business_day <= (
        select coalesce(max((now() at time zone s.time_zone)::date), current_date)
        from ops.sources as s
    );

-- State of each day in each lane; `provisional` = newer rows wait to be built, `restated` = what
-- was published changed after the day had ended.
create or replace view ops.lane_status as
select
    coalesce(p.lane, h.lane, d.lane) as lane,
    coalesce(p.business_day, h.business_day, d.business_day) as business_day,
    case
        when h.business_day is not null then 'held'
        when d.business_day is not null then 'provisional'
        when r.business_day is not null then 'restated'
        else 'complete'
    end as status,
    p.published_at,
    coalesce(p.revision, 0) as revision,
    coalesce(h.reason, b.reason) as reason,
    r.restated_at,
    r.reason as restated_because
from ops.published_days as p
full join ops.held_days as h on p.business_day = h.business_day and p.lane = h.lane
full join (select distinct business_day, lane from ops.due_marks) as d
    on
        coalesce(p.business_day, h.business_day) = d.business_day
        and coalesce(p.lane, h.lane) = d.lane
left join ops.build_days as b
    on p.build_id = b.build_id and p.business_day = b.business_day
left join (
    select distinct on (business_day) business_day, restated_at, reason
    from ops.restatements
    order by business_day, revision desc
) as r on p.business_day = r.business_day and p.lane = 'facts';

-- What a reader may know of the state of each day.
create or replace view ops.data_status as
select
    f.business_day,
    f.status,
    f.published_at,
    f.revision,
    f.reason,
    u.status as followup_status,
    f.restated_at,
    f.restated_because
from ops.lane_status as f
left join ops.lane_status as u on f.business_day = u.business_day and u.lane = 'followups'
where f.lane = 'facts';

-- The days that dbt builds now: those of the one build that is claimed and not yet published.
create or replace view ops.claimed_days as
select d.build_id, d.business_day
from ops.build_days as d
inner join ops.builds as b on d.build_id = b.build_id
where b.status in ('claimed', 'built', 'audited') and not d.is_held;

reset role;
