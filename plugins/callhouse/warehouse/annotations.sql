-- What happened that explains a number: campaigns, outages, changes. Noted by people, and shown on
-- boards beside the incidents of capture. Idempotent.
set role callhouse_owner;

create table if not exists ops.annotations (
    annotation_id bigint generated always as identity primary key,
    kind text not null check (kind in ('campaign', 'outage', 'change', 'event')),
    title text not null check (length(trim(title)) between 1 and 80),
    source text,           -- null: of every source
    first_day date not null,
    last_day date not null,
    noted_by text not null,
    noted_at timestamptz not null default clock_timestamp(),
    withdrawn_by text,
    withdrawn_at timestamptz,
    check (first_day <= last_day),
    check ((withdrawn_by is null) = (withdrawn_at is null))
);

-- One row per day and source, so that it joins with facts and follows a board's filters: what is of
-- every source stands with each. Incidents tell of all calls: they are for those who may read the
-- ledger.
create or replace view bi.fct_annotations with (security_barrier) as
select
    day.business_day::date as business_day,
    s.source,
    noted.annotation,
    noted.kind,
    noted.title,
    noted.first_day,
    noted.last_day,
    noted.noted_by
from (
    select
        'note ' || a.annotation_id as annotation,
        a.kind,
        a.title,
        a.source,
        a.first_day,
        a.last_day,
        a.noted_by
    from ops.annotations as a
    where a.withdrawn_at is null
    union all
    select
        'incident ' || i.incident_id,
        'incident',
        i.device || ': ' || i.kind,
        i.source,
        i.opened_at::date,
        coalesce(i.resolved_at, clock_timestamp())::date,
        i.owner
    from bi.fct_incidents as i
) as noted
inner join ops.sources as s on noted.source is null or noted.source = s.source
cross join lateral generate_series(noted.first_day, noted.last_day, interval '1 day') as day (business_day);

grant select on bi.fct_annotations to callhouse_reader;

comment on view bi.fct_annotations is
'One row per day, source and campaign, outage, change or event that somebody noted, or incident of capture.';

reset role;
