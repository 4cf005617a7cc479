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

-- For each answered call a ring and a state of its agent, for each call a step, for each of the first
-- ten answered calls a survey; each kind landed as a unit of its own per day.
with units as (
    insert into ops.units
    (
        source, record, name, content_hash, size_bytes, status, read_rows, staged_rows, first_day,
        last_day
    )
    select
        'hotline', 'offers', 'offers_' || business_day, md5('offers' || business_day), 1, 'landed',
        count(*), count(*), business_day, business_day
    from staging.delimited_legs
    where outcome = 'answered'
    group by business_day
    returning unit_id, first_day, staged_rows
),

days as (
    insert into ops.unit_days (unit_id, business_day, staged_rows)
    select unit_id, first_day, staged_rows from units
)

insert into staging.delimited_offers (
    source, call_id, unit_id, line_number, row_hash, queue_id, agent_id, outcome, ring_seconds,
    business_day, arrived_at, offered_at, ended_at
)
select
    l.source, l.call_id, u.unit_id, l.line_number, l.row_hash, l.queue_id, l.agent_id, 'answered', 3,
    l.business_day, l.arrived_at, l.arrived_at + interval '30 seconds',
    l.arrived_at + interval '33 seconds'
from staging.delimited_legs as l
inner join units as u on l.business_day = u.first_day
where l.outcome = 'answered';

with units as (
    insert into ops.units
    (
        source, record, name, content_hash, size_bytes, status, read_rows, staged_rows, first_day,
        last_day
    )
    select
        'hotline', 'agent_states', 'states_' || business_day, md5('states' || business_day), 1,
        'landed', count(*), count(*), business_day, business_day
    from staging.delimited_legs
    where outcome = 'answered'
    group by business_day
    returning unit_id, first_day, staged_rows
),

days as (
    insert into ops.unit_days (unit_id, business_day, staged_rows)
    select unit_id, first_day, staged_rows from units
)

insert into staging.delimited_agent_states (
    source, agent_id, unit_id, line_number, row_hash, state, call_id, business_day, started_at,
    ended_at
)
select
    l.source, l.agent_id, u.unit_id, l.line_number, l.row_hash, 'talk', l.call_id, l.business_day,
    l.arrived_at, l.arrived_at + interval '2 minutes'
from staging.delimited_legs as l
inner join units as u on l.business_day = u.first_day
where l.outcome = 'answered';

with units as (
    insert into ops.units
    (
        source, record, name, content_hash, size_bytes, status, read_rows, staged_rows, first_day,
        last_day
    )
    select
        'hotline', 'ivr_steps', 'steps_' || business_day, md5('steps' || business_day), 1, 'landed',
        count(*), count(*), business_day, business_day
    from staging.delimited_legs
    group by business_day
    returning unit_id, first_day, staged_rows
),

days as (
    insert into ops.unit_days (unit_id, business_day, staged_rows)
    select unit_id, first_day, staged_rows from units
)

insert into staging.delimited_ivr_steps (
    source, call_id, step_number, unit_id, line_number, row_hash, channel, outcome, step_seconds,
    business_day, arrived_at, entered_at
)
select
    l.source, l.call_id, 1, u.unit_id, l.line_number, l.row_hash, 'ivr',
    case when l.outcome = 'contained' then 'contained' else 'continued' end, 30, l.business_day,
    l.arrived_at, l.arrived_at
from staging.delimited_legs as l
inner join units as u on l.business_day = u.first_day;

with units as (
    insert into ops.units
    (
        source, record, name, content_hash, size_bytes, status, read_rows, staged_rows, first_day,
        last_day
    )
    select
        'hotline', 'surveys', 'surveys_' || business_day, md5('surveys' || business_day), 1,
        'landed', count(*), count(*), business_day, business_day
    from staging.delimited_legs
    where line_number <= 10
    group by business_day
    returning unit_id, first_day, staged_rows
),

days as (
    insert into ops.unit_days (unit_id, business_day, staged_rows)
    select unit_id, first_day, staged_rows from units
)

insert into staging.delimited_surveys (
    source, survey_id, unit_id, line_number, row_hash, call_id, survey_type, score, business_day,
    arrived_at, offered_at, answered_at
)
select
    l.source, 'S' || l.call_id, u.unit_id, l.line_number, l.row_hash, l.call_id, 'csat',
    case when l.line_number > 2 then l.line_number / 2 end, l.business_day, l.arrived_at, l.ended_at,
    l.ended_at
from staging.delimited_legs as l
inner join units as u on l.business_day = u.first_day
where l.line_number <= 10;

with units as (
    insert into ops.units
    (
        source, record, name, content_hash, size_bytes, status, read_rows, staged_rows, first_day,
        last_day
    )
    select
        'hotline', 'schedules', 'plans_' || business_day, md5('plans' || business_day), 1,
        'landed', count(distinct agent_id), count(distinct agent_id), business_day, business_day
    from staging.delimited_agent_states
    group by business_day
    returning unit_id, first_day, staged_rows
),

days as (
    insert into ops.unit_days (unit_id, business_day, staged_rows)
    select unit_id, first_day, staged_rows from units
)

insert into staging.delimited_schedules (
    source, agent_id, unit_id, line_number, row_hash, activity, paid, shift_date, business_day,
    starts_at, ends_at
)
select
    s.source, s.agent_id, u.unit_id, min(s.line_number), md5(s.agent_id)::uuid, 'work', 'yes',
    s.business_day, s.business_day, min(s.started_at), max(s.ended_at)
from staging.delimited_agent_states as s
inner join units as u on s.business_day = u.first_day
group by s.source, s.agent_id, u.unit_id, s.business_day;
