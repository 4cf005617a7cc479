-- What readers may know of how their numbers came about. Owner's views on purpose: they tell of
-- units, days and counts. Where a row could tell of a call, only those who see all calls read it.
set role callhouse_owner;

create or replace view bi.data_status with (security_barrier) as
select
    business_day,
    status,
    published_at,
    revision,
    reason,
    followup_status,
    restated_at,
    restated_because
from ops.data_status;

create or replace view bi.source_days with (security_barrier) as
select
    t.source,
    p.business_day,
    p.revision,
    p.published_at
from ops.published_days as p
inner join ops.day_totals as t on p.build_id = t.build_id and p.business_day = t.business_day
where p.lane = 'facts';

create or replace view bi.fct_landed_units with (security_barrier) as
select
    u.unit_id,
    u.source,
    u.record,
    u.name as unit_name,
    u.landed_at,
    u.status,
    u.first_day,
    u.last_day,
    u.read_rows,
    u.staged_rows,
    coalesce(q.open_rows, 0) as open_rows,
    coalesce(q.discarded_rows, 0) as discarded_rows,
    u.duplicate_rows,
    u.header_rows,
    u.read_rows - u.staged_rows - u.duplicate_rows
    - coalesce(q.open_rows, 0) - coalesce(q.discarded_rows, 0) as missing_rows,
    u.reason,
    coalesce(q.replayed_rows, 0) as replayed_rows
from ops.units as u
left join (
    select
        unit_id,
        count(*) filter (where discarded_at is null and replayed_at is null) as open_rows,
        count(discarded_at) as discarded_rows,
        count(replayed_at) as replayed_rows
    from ops.quarantine
    group by unit_id
) as q on u.unit_id = q.unit_id
where sec.reads_ledger();

create or replace view bi.fct_landed_days with (security_barrier) as
select
    d.business_day,
    u.source,
    u.record,
    u.unit_id,
    u.name as unit_name,
    u.landed_at,
    d.staged_rows
from ops.unit_days as d
inner join ops.units as u on d.unit_id = u.unit_id
where sec.reads_ledger();

create or replace view bi.fct_day_balances with (security_barrier) as
select
    b.business_day,
    b.source,
    b.balance,
    b.left_count,
    b.right_count,
    b.left_checksum,
    b.right_checksum,
    (b.left_count, b.left_checksum) = (b.right_count, b.right_checksum) as is_balanced,
    p.published_at,
    p.revision
from ops.balances as b
inner join ops.builds as built on b.build_id = built.build_id
inner join ops.published_days as p
    on b.build_id = p.build_id and b.business_day = p.business_day and built.lane = p.lane
where sec.reads_ledger();

create or replace view bi.fct_restatements with (security_barrier) as
select
    r.business_day,
    r.revision,
    r.restated_at,
    r.reason,
    coalesce(t.source, o.source) as source,
    coalesce(o.calls, 0) as calls_before,
    coalesce(t.calls, 0) as calls_after,
    coalesce(o.calls_offered, 0) as calls_offered_before,
    coalesce(t.calls_offered, 0) as calls_offered_after,
    coalesce(o.calls_answered, 0) as calls_answered_before,
    coalesce(t.calls_answered, 0) as calls_answered_after,
    coalesce(o.calls_abandoned, 0) as calls_abandoned_before,
    coalesce(t.calls_abandoned, 0) as calls_abandoned_after,
    coalesce(o.handle_seconds, 0) as handle_seconds_before,
    coalesce(t.handle_seconds, 0) as handle_seconds_after
from ops.restatements as r
cross join lateral (
    select d.source from ops.day_totals as d
    where d.build_id in (r.build_id, r.previous_build_id) and d.business_day = r.business_day
    group by d.source
) as s
left join ops.day_totals as t
    on r.build_id = t.build_id and r.business_day = t.business_day and s.source = t.source
left join ops.day_totals as o
    on
        r.previous_build_id = o.build_id
        and r.business_day = o.business_day
        and s.source = o.source
where sec.reads_ledger();

create or replace view bi.fct_dq_results with (security_barrier) as
select
    r.result_id,
    r.build_id,
    coalesce(b.lane, 'published') as audited,
    r.boundary,
    r.suite,
    r.expectation,
    r.column_name,
    r.severity,
    r.is_success,
    r.observed,
    cardinality(r.failing_days) as failing_days,
    r.failing_days[1] as first_failing_day,
    r.note,
    r.checked_at
from ops.expectation_results as r
left join ops.builds as b on r.build_id = b.build_id
where sec.reads_ledger();

create or replace view bi.fct_releases with (security_barrier) as
select
    release_id,
    business_day,
    lane,
    array_to_string(expectations, ', ') as expectations,
    reason,
    released_by,
    released_at
from ops.releases
where sec.reads_ledger();

grant select on
bi.data_status, bi.source_days, bi.fct_landed_units, bi.fct_landed_days,
bi.fct_day_balances, bi.fct_restatements, bi.fct_dq_results, bi.fct_releases
to callhouse_reader;

comment on view bi.data_status is 'One row per business day: what is published of it and why not.';
comment on view bi.source_days is
'One row per source and business day of which calls are published.';
comment on view bi.fct_landed_units is
'One row per landed unit: read = staged + open + discarded + duplicates, and missing is 0.';
comment on view bi.fct_landed_days is 'One row per landed unit and business day: staged records.';
comment on view bi.fct_day_balances is
'One row per published day, source and balance: both sides, and sums over the keys of their rows.';
comment on view bi.fct_restatements is
'One row per restated day, revision and source: totals before and after, when and why.';
comment on view bi.fct_dq_results is 'One row per expectation and audit.';
comment on view bi.fct_releases is 'One row per release of a held day: who, when and why.';

reset role;
