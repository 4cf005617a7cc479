-- {calls} calls on each of the days from {first_day} to {last_day}, landed as one unit per day.
insert into ops.sources (source, vendor, label, time_zone)
values ('hotline', 'delimited', 'Hotline', 'Asia/Shanghai')
on conflict do nothing;

insert into ops.units
(source, record, name, content_hash, size_bytes, status, read_rows, staged_rows, first_day, last_day)
select
    'hotline',
    'legs',
    'calls_' || d::date,
    md5(d::text),
    1,
    'landed',
    {calls},
    {calls},
    d::date,
    d::date
from generate_series(timestamp '{first_day}', timestamp '{last_day}', interval '1 day') as d;

insert into ops.unit_days (unit_id, business_day, staged_rows)
select unit_id, first_day, staged_rows from ops.units where source = 'hotline';

insert into staging.delimited_legs (
    source, call_id, leg_number, unit_id, line_number, row_hash, channel, queue_id, agent_id,
    outcome, abandon_stage, ivr_seconds, wait_seconds, ring_seconds, talk_seconds, hold_seconds,
    acw_seconds, business_day, arrived_at, ended_at
)
select
    'hotline',
    u.first_day || '-' || n,
    1,
    u.unit_id,
    n,
    md5(u.first_day || '-' || n)::uuid,
    'human',
    case when n % 10 < 8 then 'queue_' || n % 4 end,
    case when n % 10 < 7 then 'agent_' || n % 50 end,
    case
        when n % 10 < 7 then 'answered'
        when n % 10 < 9 then 'abandoned'
        else 'contained'
    end,
    case n % 10 when 7 then 'queue' when 8 then 'ivr' end,
    30,
    case when n % 10 < 8 then n % 60 end,
    case when n % 10 < 7 then 3 end,
    case when n % 10 < 7 then 120 end,
    case when n % 10 < 7 then 0 end,
    case when n % 10 < 7 then 10 end,
    u.first_day,
    arrival.instant,
    arrival.instant + interval '5 minutes'
from ops.units as u
cross join generate_series(1, {calls}) as n
cross join lateral (
    select
        (u.first_day + interval '8 hours' + n * interval '10 seconds') at time zone 'Asia/Shanghai'
            as instant
) as arrival
where u.source = 'hotline';
