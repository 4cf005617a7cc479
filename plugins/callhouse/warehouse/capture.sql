-- Capture health: who delivers records, when each was last heard, what is missing, and incidents.
-- Idempotent. `callhouse.capture` fills in what is declared, heard and counted; what it means is
-- judged here, as of a moment that is handed over, so that yesterday can be judged again.
set role callhouse_owner;

-- ---------------------------------------------------------------- what is watched
create table if not exists ops.capture_devices (
    device text primary key,         -- of a feed the name of its DAG and drop folder
    kind text not null check (kind in ('feed', 'collector', 'pbx', 'trunk', 'recorder')),
    label text not null,
    owner text not null,
    source text,                     -- of a feed, or of what loses rows with its beats: of rows
    records text[] not null default '{}', -- of a feed: kinds of rows; the first is counted
    events_of text,                  -- feed whose past tells how many events are to be expected
    time_zone text not null,
    interval_seconds integer not null, -- between two heartbeats
    delay_seconds integer,           -- from an event to its row, at most
    due time,                        -- local time by which the files of the day before are here
    is_working_days boolean not null default false, -- delivers for working days alone
    calendar text,                   -- names the days that are no ordinary ones
    skew_seconds integer not null,
    lag_seconds integer,
    acknowledge_seconds integer not null,
    is_declared boolean not null default false,
    registered_at timestamptz not null,
    retired_at timestamptz,
    newest_event_at timestamptz,     -- of a feed, in what has landed, but for what is yet to come
    newest_landed_at timestamptz,    -- when that event landed
    ahead_seconds double precision,  -- how far events lay before us when they landed last
    clock_good_at timestamptz,       -- when they last did not
    counted_unit_id bigint not null default 0
);

-- Names of files that come one after the other: a pattern with one group for the date, and one with
-- a group for the number.
create table if not exists ops.capture_series (
    device text not null references ops.capture_devices,
    series text not null,
    date_pattern text,
    number_pattern text,
    primary key (device, series)
);

create table if not exists ops.capture_holidays (
    calendar text not null,
    day date not null,
    is_working_day boolean not null,
    primary key (calendar, day)
);

-- Other names under which a landed content came again. Files without rows are all alike, and each
-- tells that its day was delivered.
create table if not exists ops.unit_names (
    unit_id bigint not null references ops.units on delete cascade,
    name text not null,
    came_at timestamptz not null default now(),
    primary key (unit_id, name)
);

create table if not exists ops.heartbeats (
    beat_id bigint generated always as identity primary key,
    device text not null references ops.capture_devices,
    beat_at timestamptz not null,    -- by our clock
    device_at timestamptz,           -- by the device's clock, at the same moment
    sequence bigint,                 -- counted by the device; 0 or 1: it has started again
    position text,                   -- how far it has got, in its own words
    newest_event_at timestamptz      -- newest event that the device knows of
);
create index if not exists heartbeats_device on ops.heartbeats (device, beat_id);
-- A beat that is sent again is the same beat. Without the device's clock it may be one of another
-- start, and a device that lives must not be taken for a dead one.
create unique index if not exists heartbeats_once on ops.heartbeats (device, sequence, device_at)
where sequence is not null and device_at is not null;

-- Events (calls, where rows have calls) of a feed's first record by hour of their local time.
create table if not exists ops.capture_hours (
    device text not null references ops.capture_devices,
    business_day date not null,
    hour_at timestamptz not null,
    events bigint not null,
    primary key (device, business_day, hour_at)
);

-- Since when somebody looks without a break: nobody is blamed for what nobody watched.
create table if not exists ops.capture_watch (
    is_only boolean primary key default true check (is_only),
    watching_since timestamptz not null,
    checked_at timestamptz not null
);

create table if not exists ops.capture_health (
    device text not null references ops.capture_devices,
    checked_at timestamptz not null,
    status text not null check (status in ('ok', 'recovering', 'excused', 'unknown', 'incident')),
    detail text not null,
    heartbeat_at timestamptz,
    newest_event_at timestamptz,
    heartbeat_age_seconds double precision,
    lag_seconds double precision,
    skew_seconds double precision,
    missing_numbers bigint not null,
    missing_days bigint not null,
    expected_events double precision, -- since the newest event; null: not judged
    silence_probability double precision,
    primary key (device, checked_at)
);

create table if not exists ops.incidents (
    incident_id bigint generated always as identity primary key,
    device text not null references ops.capture_devices,
    kind text not null
    check (kind in ('heartbeat', 'silence', 'late', 'empty', 'gap', 'clock', 'lag')),
    owner text not null,
    opened_at timestamptz not null,
    items text[] not null,           -- what is at fault: what a person has closed opens no more
    detail text not null,
    evidence jsonb not null default '[]', -- missing numbers of files: series, day, first, last
    days date[] not null default '{}', -- business days that may lack rows
    since_at timestamptz,            -- from when on rows may lack, where that is no whole day
    well_since timestamptz,          -- the cause is gone; closed when it stays so
    escalated_at timestamptz,        -- nobody had acknowledged it in time
    acknowledged_at timestamptz,
    acknowledged_by text,
    resolved_at timestamptz,
    resolved_by text,                -- null: it was gone by itself
    resolution text,
    back_filled_rows bigint,         -- staged after it was opened, of what had been missing
    back_filled_days bigint,
    back_filled_at timestamptz
);
create unique index if not exists incidents_open on ops.incidents (device, kind)
where resolved_at is null;

-- ---------------------------------------------------------------- what is known of it
create or replace function ops.is_delivery_day(wanted ops.capture_devices, day date)
returns boolean
language sql stable as $$
    select not wanted.is_working_days or coalesce(
        (
            select h.is_working_day from ops.capture_holidays as h
            where h.calendar = wanted.calendar and h.day = is_delivery_day.day
        ),
        extract(isodow from day) < 6
    )
$$;

-- When the files of `day` must be here: at `due` on the next day on which the source delivers.
create or replace function ops.due_at(wanted ops.capture_devices, day date) returns timestamptz
language sql stable as $$
    select (min(d.delivered_on) + wanted.due) at time zone wanted.time_zone
    from (
        select day + n as delivered_on from generate_series(1, 30) as s (n)
    ) as d
    where ops.is_delivery_day(wanted, d.delivered_on)
$$;

-- Files of feeds with the date and the number in their names.
create or replace view ops.capture_files as
select
    d.device,
    s.series,
    u.unit_id,
    n.name,
    u.status,
    n.came_at as landed_at,
    u.read_rows = 0 and (u.status = 'landed' or u.reason like '% is empty:%') as is_empty,
    replace((regexp_match(n.name, s.date_pattern))[1], '-', '') as day_text,
    (regexp_match(n.name, s.number_pattern))[1]::numeric as number
from ops.capture_devices as d
inner join ops.units as u on d.source = u.source and u.record = any(d.records)
inner join (
    select unit_id, name, landed_at as came_at from ops.units
    union all
    select unit_id, name, came_at from ops.unit_names
) as n on u.unit_id = n.unit_id
left join ops.capture_series as s
    on d.device = s.device and n.name ~ coalesce(s.date_pattern, s.number_pattern);

-- When a device was last heard, and the newest event that it knew of.
create or replace view ops.last_heartbeats as
select d.device, max(h.beat_at) as heartbeat_at, max(h.newest_event_at) as newest_event_at
from ops.capture_devices as d
cross join lateral (
    select b.beat_at, b.newest_event_at from ops.heartbeats as b
    where b.device = d.device
    order by b.beat_id desc
    limit 100
) as h
group by d.device;

-- From when on something missing is looked for. What an open incident has found stays in sight:
-- it must not close because it has grown old.
create or replace function ops.looks_back_to(wanted text, moment timestamptz) returns timestamptz
language sql stable as $$
    select least(moment, min(i.opened_at)) - interval '35 days'
    from ops.incidents as i
    where i.device = wanted and i.kind in ('late', 'empty', 'gap') and i.resolved_at is null
$$;

-- How many events the same hours of the weeks before had, and how likely none at all is: the mean
-- of exp(-events) over these weeks, so that a slot that has been quiet before may be quiet again.
-- Null where fewer than four weeks can be compared.
create or replace function ops.expected_events(
    wanted text, since timestamptz, until timestamptz,
    out expected double precision, out probability double precision
)
language sql stable as $$
    with device as (
        select d.*, h.first_day
        from ops.capture_devices as d
        cross join lateral (
            select min(c.business_day) as first_day from ops.capture_hours as c
            where c.device = d.device
        ) as h
        where d.device = wanted
    ),
    slots as (
        select
            s.local_hour,
            extract(
                epoch from least(s.hour_at + interval '1 hour', until) - greatest(s.hour_at, since)
            )::double precision / 3600 as share
        from device as d
        cross join lateral (
            select h.hour_at, h.hour_at at time zone d.time_zone as local_hour
            from generate_series(
                date_trunc('hour', since, d.time_zone), until, interval '1 hour'
            ) as h (hour_at)
        ) as s
        where
            s.hour_at < until
            and not exists (
                select from ops.capture_holidays as x
                where x.calendar = d.calendar and x.day = s.local_hour::date
            )
            and (not d.is_working_days or extract(isodow from s.local_hour) < 6)
    ),
    -- A week counts if each of its days was an ordinary day on which everything was captured.
    weeks as (
        select w.n
        from device as d
        cross join generate_series(1, 8) as w (n)
        where
            exists (select from slots)
            and not exists (
                select from slots as s
                cross join lateral (select s.local_hour::date - 7 * w.n as day) as b
                where
                    b.day <= d.first_day
                    or exists (
                        select from ops.capture_holidays as x
                        where x.calendar = d.calendar and x.day = b.day
                    )
                    or exists (
                        select from ops.incidents as i
                        where
                            i.device = d.device
                            and i.kind in ('silence', 'late')
                            and coalesce(i.back_filled_rows, 0) = 0
                            and b.day = any(i.days)
                    )
            )
    ),
    by_week as (
        select w.n, coalesce(sum(s.share * h.events), 0)::double precision as events
        from weeks as w
        cross join device as d
        cross join slots as s
        left join (
            select c.hour_at, sum(c.events) as events from ops.capture_hours as c
            where c.device = wanted
            group by c.hour_at
        ) as h
            on h.hour_at = (s.local_hour - make_interval(weeks => w.n)) at time zone d.time_zone
        group by w.n
    )
    -- Beyond 700 the exponential underflows.
    select avg(b.events), avg(exp(-least(b.events, 700)))
    from by_week as b
    having count(*) >= 4
$$;

-- ---------------------------------------------------------------- what it means
-- One row per device and question at `moment`. `items` is what is at fault, `value` the measure.
create or replace function ops.capture_findings(moment timestamptz, silence_limit double precision)
returns table (
    device text, kind text, verdict text, items text[], detail text, value double precision,
    probability double precision, days date[], since_at timestamptz, evidence jsonb
)
language sql stable as $$
    with watched as (
        select
            d.*,
            w.watching_since,
            b.heartbeat_at,
            b.newest_event_at as newest_told_at,
            (moment at time zone d.time_zone)::date as today,
            l.looks_back_to
        from ops.capture_devices as d
        cross join ops.capture_watch as w
        cross join lateral (select ops.looks_back_to(d.device, moment)) as l (looks_back_to)
        left join ops.last_heartbeats as b on d.device = b.device
        where d.retired_at is null
    ),

    starts as (
        select
            w.device,
            coalesce(max(h.beat_id) filter (where h.sequence <= 1), 0) as beat_id
        from watched as w
        inner join ops.heartbeats as h on w.device = h.device and h.beat_at > w.looks_back_to
        group by w.device
    ),

    -- Beats since the device last started; what was sent late is not the newest.
    beats as materialized (
        select
            h.*,
            row_number() over (
                partition by h.device order by h.sequence desc nulls first, h.beat_id desc
            ) = 1 as is_newest
        from watched as w
        inner join starts as s on w.device = s.device
        inner join ops.heartbeats as h
            on w.device = h.device and h.beat_at > w.looks_back_to and h.beat_id >= s.beat_id
    ),

    files as materialized (
        select f.*
        from watched as w
        inner join ops.capture_files as f on w.device = f.device
        where
            f.landed_at > w.looks_back_to
            and (w.due is not null or f.series is not null)
    ),

    heartbeat as (
        select
            w.device,
            'heartbeat' as kind,
            case
                when moment - w.heartbeat_at <= p.patience then 'ok'
                when
                    moment - greatest(w.heartbeat_at, w.watching_since, w.registered_at)
                    > p.patience
                    then 'bad'
                else 'unknown'
            end as verdict,
            array['since ' || coalesce(w.heartbeat_at::text, 'ever')] as items,
            case when w.heartbeat_at is null then 'no heartbeat yet'
            else format(
                'no heartbeat since %s UTC, one is due every %s s',
                to_char(w.heartbeat_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                w.interval_seconds
            ) end as detail,
            extract(epoch from moment - w.heartbeat_at)::double precision as value,
            w.heartbeat_at as since_at
        from watched as w
        -- Half an interval for the watch itself: an alarm comes within two.
        cross join lateral (
            select make_interval(secs => 1.5 * w.interval_seconds) as patience
        ) as p
    ),

    -- From the newest event on, up to when its successors must be here. While the collector does
    -- not look nothing can be said of the source: that is the heartbeat's incident.
    silence_windows as (
        select
            w.device,
            w.events_of,
            coalesce(w.newest_event_at, w.newest_told_at) as since,
            case
                when w.delay_seconds is not null
                    then w.heartbeat_at - make_interval(secs => w.delay_seconds)
                when w.due is null then w.heartbeat_at - make_interval(secs => w.interval_seconds)
                when ops.due_at(d, e.day) <= moment
                    then (e.day + 1)::timestamp at time zone w.time_zone
            end as until
        from watched as w
        inner join ops.capture_devices as d on w.device = d.device
        cross join lateral (
            select (w.newest_event_at at time zone w.time_zone)::date as day
        ) as e
        where w.kind = 'feed' or w.events_of is not null
    ),

    silence as (
        select
            s.device,
            'silence' as kind,
            case
                when s.events_of is null or s.since is null then 'unknown'
                when s.until <= s.since or s.until is null then 'ok'
                when x.probability is null then 'unknown'
                when x.probability < silence_limit then 'bad'
                else 'ok'
            end as verdict,
            array['since ' || coalesce(s.since::text, 'ever')] as items,
            case
                when s.events_of is null then 'nothing says how many events to expect'
                when s.since is null then 'no event yet'
                when x.probability is null
                    then 'silence is not judged: too few weeks, or no ordinary day, to compare'
                else format(
                    'no event since %s UTC, where %s were to be expected',
                    to_char(s.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                    round(x.expected)
                )
            end as detail,
            case when s.until <= s.since then 0 else x.expected end as value,
            case when s.until <= s.since then 1 else x.probability end as probability,
            s.since as since_at
        from silence_windows as s
        left join lateral ops.expected_events(
            s.events_of, greatest(s.since, s.until - interval '7 days'), s.until
        ) as x on s.since < s.until
    ),

    -- Days of a feed with daily files, from the first one known on.
    landed_days as materialized (
        select distinct w.device, u.business_day
        from watched as w
        inner join ops.units as t on w.source = t.source and t.record = w.records[1]
        inner join ops.unit_days as u on t.unit_id = u.unit_id
        where
            w.due is not null
            and u.staged_rows > 0
            and u.business_day >= (w.looks_back_to - interval '1 day')::date
    ),

    due_days as (
        select w.device, c.day, f.has_file, f.has_rows, f.is_empty, x.has_dates
        from watched as w
        inner join ops.capture_devices as d on w.device = d.device
        cross join lateral (
            select exists (
                select from ops.capture_series as s
                where s.device = w.device and s.date_pattern is not null
            ) as has_dates
        ) as x
        cross join lateral (
            select least(
                (
                    select min(t.first_day) from ops.units as t
                    where
                        t.source = w.source and t.record = w.records[1] and t.status = 'landed'
                ),
                (
                    select min(to_date(g.day_text, 'YYYYMMDD')) from files as g
                    where g.device = w.device and g.status = 'landed'
                )
            ) as day
        ) as o
        cross join lateral (
            select g.day::date as day
            from generate_series(
                greatest(o.day, (w.looks_back_to at time zone w.time_zone)::date)::timestamp,
                w.today::timestamp, interval '1 day'
            ) as g (day)
        ) as c
        cross join lateral (
            select
                coalesce(bool_or(
                    g.status = 'landed' and g.day_text = to_char(c.day, 'YYYYMMDD')
                ), false) as has_file,
                -- Without a date in its name a file is of the day before.
                coalesce(bool_or(g.is_empty and coalesce(
                    g.day_text,
                    to_char((g.landed_at at time zone w.time_zone)::date - 1, 'YYYYMMDD')
                ) = to_char(c.day, 'YYYYMMDD')), false) as is_empty,
                exists (
                    select from landed_days as l
                    where l.device = w.device and l.business_day = c.day
                ) as has_rows
            from files as g
            where g.device = w.device
        ) as f
        where
            w.due is not null
            and o.day is not null
            and ops.is_delivery_day(d, c.day)
    ),

    daily as (
        select
            w.device,
            k.kind,
            case
                when x.days is not null then 'bad'
                when o.device is null then 'unknown'
                else 'ok'
            end as verdict,
            x.days::text[] as items,
            case
                when o.device is null then 'no day yet' else k.words
            end as detail,
            cardinality(x.days)::double precision as value,
            x.days
        from watched as w
        cross join (
            values ('late', 'nothing came of '), ('empty', 'empty file of ')
        ) as k (kind, words)
        left join (select distinct y.device from due_days as y) as o on w.device = o.device
        left join lateral (
            select array_agg(y.day order by y.day) as days
            from due_days as y
            inner join ops.capture_devices as d on y.device = d.device
            where
                y.device = w.device
                and case k.kind
                    when 'empty' then y.is_empty and not y.has_rows and not exists (
                        select from ops.capture_holidays as h
                        where
                            h.calendar = d.calendar and h.day = y.day and not h.is_working_day
                    )
                    else
                        not y.is_empty
                        and not (y.has_file or (not y.has_dates and y.has_rows))
                        and ops.due_at(d, y.day) <= moment
                end
        ) as x on true
        where w.due is not null
    ),

    -- Numbers that lack between two that are here: of heartbeats, and of files of a series.
    numbers as (
        select distinct
            b.device, 'beats' as series, null::text as day_text, b.sequence::numeric as n,
            b.beat_at
        from beats as b
        where b.sequence is not null
        union
        select f.device, f.series, f.day_text, f.number, null
        from files as f
        where f.status = 'landed' and f.number is not null
    ),

    holes as (
        select
            n.device,
            case
                when n.loses_rows
                    then format(
                        'what it told from %s to %s UTC',
                        to_char(n.previous_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                        to_char(n.beat_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
                    )
                else
                    n.series || coalesce(' ' || n.day_text, '') || ': ' || n.previous + 1
                    || case when n.n - n.previous > 2 then '–' || n.n - 1 else '' end
            end as item,
            n.n - n.previous - 1 as missing,
            case
                when n.loses_rows
                    then array(
                        select g.day::date
                        from generate_series(
                            (n.previous_at at time zone n.time_zone)::date::timestamp,
                            (n.beat_at at time zone n.time_zone)::date::timestamp,
                            interval '1 day'
                        ) as g (day)
                    )
                else '{}'
            end as days,
            jsonb_build_object(
                'series', n.series, 'day', n.day_text, 'first', n.previous + 1, 'last', n.n - 1
            ) as evidence
        from (
            select
                x.*,
                w.time_zone,
                -- Who listens to a source leaves out a number for what it did not hear.
                x.beat_at is not null and w.source is not null as loses_rows,
                lag(x.n) over in_series as previous,
                lag(x.beat_at) over in_series as previous_at
            from numbers as x
            inner join watched as w on x.device = w.device
            window in_series as (partition by x.device, x.series, x.day_text order by x.n)
        ) as n
        where n.n - n.previous > 1
        union all
        -- Dates that lack, where no time is set by which they are due.
        select w.device, r.series || ': ' || g.day::date, 0, array[g.day::date], null
        from (
            select
                f.device,
                f.series,
                min(to_date(f.day_text, 'YYYYMMDD')) as first_day,
                max(to_date(f.day_text, 'YYYYMMDD')) as last_day,
                array_agg(f.day_text) as there
            from files as f
            where f.status = 'landed' and f.day_text is not null
            group by f.device, f.series
        ) as r
        inner join watched as w on r.device = w.device
        inner join ops.capture_devices as d on r.device = d.device
        cross join lateral generate_series(
            r.first_day::timestamp, r.last_day::timestamp, interval '1 day'
        ) as g (day)
        where
            w.due is null
            and ops.is_delivery_day(d, g.day::date)
            and to_char(g.day, 'YYYYMMDD') <> all(r.there)
    ),

    gap as (
        select
            w.device,
            'gap' as kind,
            case when x.items is null then 'ok' else 'bad' end as verdict,
            x.items,
            'missing in its series: ' as detail,
            coalesce(x.missing, 0)::double precision as value,
            coalesce(x.days, '{}') as days,
            coalesce(x.evidence, '[]') as evidence
        from watched as w
        left join lateral (
            select
                array_agg(h.item order by h.item) as items,
                sum(h.missing) as missing,
                (
                    select array_agg(distinct d.day order by d.day)
                    from holes as y
                    cross join lateral unnest(y.days) as d (day)
                    where y.device = w.device
                ) as days,
                jsonb_agg(h.evidence) filter (where h.evidence is not null) as evidence
            from holes as h
            where h.device = w.device
        ) as x on true
        where
            exists (select from ops.capture_series as s where s.device = w.device)
            or exists (select from numbers as n where n.device = w.device)
    ),

    -- Our clock against the device's. An event that landed before it happened tells it as well.
    clocks as (
        select
            w.device,
            w.skew_seconds as most,
            extract(epoch from b.device_at - b.beat_at)::double precision as skew,
            (
                select g.beat_at from ops.heartbeats as g
                where
                    g.device = w.device
                    and abs(extract(epoch from g.device_at - g.beat_at)) <= w.skew_seconds
                order by g.beat_id desc
                limit 1
            ) as good_at
        from watched as w
        inner join beats as b on w.device = b.device and b.is_newest and b.device_at is not null
        union all
        select
            w.device,
            w.skew_seconds,
            w.ahead_seconds,
            w.clock_good_at
        from watched as w
        where w.ahead_seconds is not null
    ),

    clock as (
        select
            c.device,
            'clock' as kind,
            case when abs(c.skew) > c.most then 'bad' else 'ok' end as verdict,
            array['since ' || coalesce(c.good_at::text, 'ever')] as items,
            format(
                'its clock is %s s %s of ours', round(abs(c.skew)),
                case when c.skew > 0 then 'ahead' else 'behind' end
            ) as detail,
            c.skew as value
        from clocks as c
    ),

    -- How old the newest event was when we heard of it: a quiet night makes nobody late.
    lag as (
        select
            w.device,
            'lag' as kind,
            case when l.seconds > w.lag_seconds then 'bad'
            when l.seconds is null then 'unknown' else 'ok' end as verdict,
            array['since ' || coalesce(l.event_at::text, 'ever')] as items,
            coalesce(
                format(
                    'its newest event was %s s old when it came, at most %s s are expected',
                    round(l.seconds), w.lag_seconds
                ),
                'no event yet'
            ) as detail,
            l.seconds as value,
            l.event_at as since_at
        from watched as w
        left join beats as b on w.device = b.device and b.is_newest
        cross join lateral (
            select
                coalesce(w.newest_event_at, b.newest_event_at) as event_at,
                extract(
                    epoch from coalesce(w.newest_landed_at, b.beat_at)
                    - coalesce(w.newest_event_at, b.newest_event_at)
                )::double precision as seconds
        ) as l
        where w.lag_seconds is not null
    ),

    found as (
        select h.device, h.kind, h.verdict, h.items, h.detail, h.value, null as probability,
            null::date[] as days, h.since_at, '[]'::jsonb as evidence
        from heartbeat as h
        union all
        select s.device, s.kind, s.verdict, s.items, s.detail, s.value, s.probability, null,
            s.since_at, '[]' from silence as s
        union all
        select d.device, d.kind, d.verdict, d.items, d.detail, d.value, null, d.days, null, '[]'
        from daily as d
        union all
        select g.device, g.kind, g.verdict, g.items, g.detail, g.value, null, g.days, null,
            g.evidence from gap as g
        union all
        select c.device, c.kind, c.verdict, c.items, c.detail, c.value, null, '{}', null, '[]'
        from clock as c
        union all
        select l.device, l.kind, l.verdict, l.items, l.detail, l.value, null, null, l.since_at, '[]'
        from lag as l
    )

    -- What a person has closed stays closed until something else is at fault.
    select
        f.device,
        f.kind,
        case when f.verdict = 'bad' and i.items is null then 'excused' else f.verdict end,
        i.items,
        f.detail || case
            when f.kind in ('late', 'empty', 'gap')
                then coalesce(array_to_string(i.items[:10], '; '), '')
                || case when cardinality(i.items) > 10 then ' …' else '' end
            else ''
        end,
        f.value,
        f.probability::double precision,
        -- Of what has no days of its own: the local days since it was last well.
        coalesce(i.days, f.days, (
            select array_agg(g.day::date)
            from generate_series(
                greatest((f.since_at at time zone w.time_zone)::date, w.today - 35)::timestamp,
                w.today::timestamp, interval '1 day'
            ) as g (day)
            where f.since_at is not null
        ), '{}'),
        f.since_at,
        f.evidence
    from found as f
    inner join watched as w on f.device = w.device
    left join lateral (
        select
            array_agg(x.item) as items,
            case when f.kind in ('late', 'empty') then array_agg(x.item)::date[] end as days
        from unnest(f.items) as x (item)
        where not exists (
            select from ops.incidents as p
            where
                p.device = f.device
                and p.kind = f.kind
                and p.resolved_by is not null
                and x.item = any(p.items)
        )
    ) as i on true
$$;

-- Look at everything once: open, update and close incidents, and write health down. Returns what
-- somebody should hear of: `opened`, `escalated`, `resolved`.
create or replace function ops.watch_capture(
    moment timestamptz, silence_limit double precision default 1e-6
)
returns table (event text, incident_id bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    f record;
    known ops.incidents;
    watched ops.capture_devices;
    closing timestamptz;
begin
    perform pg_advisory_xact_lock(hashtextextended('watch capture', 0));
    insert into ops.capture_watch as w (watching_since, checked_at) values (moment, moment)
    on conflict (is_only) do update set
        watching_since = case
            when moment - w.checked_at > interval '15 minutes' then moment else w.watching_since
        end,
        checked_at = moment;

    create temporary table capture_found on commit drop as
    select * from ops.capture_findings(moment, silence_limit);

    for f in
        select * from capture_found as c
        where
            c.verdict = 'bad'
            or exists (
                select from ops.incidents as i
                where i.device = c.device and i.kind = c.kind and i.resolved_at is null
            )
        order by c.device, c.kind
    loop
        select * into watched from ops.capture_devices as d where d.device = f.device;
        select * into known from ops.incidents as i
        where i.device = f.device and i.kind = f.kind and i.resolved_at is null;
        if f.verdict = 'bad' and known.incident_id is null then
            insert into ops.incidents (
                device, kind, owner, opened_at, items, detail, evidence, days, since_at
            )
            values (
                f.device, f.kind, watched.owner, moment, f.items, f.detail, f.evidence, f.days,
                f.since_at
            )
            returning ops.incidents.incident_id into known.incident_id;
            event := 'opened';
            incident_id := known.incident_id;
            return next;
        elsif f.verdict = 'bad' then
            update ops.incidents as i set
                items = f.items,
                detail = f.detail,
                evidence = i.evidence || f.evidence,
                days = array(select distinct d from unnest(i.days || f.days) as x (d) order by d),
                well_since = null
            where i.incident_id = known.incident_id
            and (i.items, i.detail, i.days, i.well_since)
            is distinct from (f.items, f.detail, f.days, null);
        elsif f.verdict in ('ok', 'excused') then
            -- What comes and goes must stay well for two intervals: one heartbeat is not enough.
            -- What was missing is there or not.
            closing := coalesce(known.well_since, moment);
            if
                f.kind in ('late', 'empty', 'gap')
                or moment - closing >= make_interval(secs => 2 * watched.interval_seconds)
            then
                update ops.incidents as i set
                    resolved_at = closing,
                    well_since = closing,
                    resolution = case f.kind
                        when 'heartbeat' then 'it is heard again'
                        when 'silence' then 'events come again'
                        when 'clock' then 'the clocks agree again'
                        when 'lag' then 'events come in time again'
                        else 'nothing is missing any more'
                    end
                where i.incident_id = known.incident_id;
                event := 'resolved';
                incident_id := known.incident_id;
                return next;
            else
                update ops.incidents as i set well_since = closing
                where i.incident_id = known.incident_id and i.well_since is null;
            end if;
        end if;
    end loop;

    -- What is declared no more is no longer asked.
    return query
    update ops.incidents as i set
        resolved_at = moment, well_since = moment, resolution = 'it is no longer watched'
    where
        i.resolved_at is null
        and not exists (
            select from capture_found as c where c.device = i.device and c.kind = i.kind
        )
    returning 'resolved', i.incident_id;

    return query
    update ops.incidents as i set escalated_at = moment
    from ops.capture_devices as d
    where
        i.device = d.device
        and i.resolved_at is null
        and i.well_since is null
        and i.acknowledged_at is null
        and i.escalated_at is null
        and moment - i.opened_at > make_interval(secs => d.acknowledge_seconds)
    returning 'escalated', i.incident_id;

    insert into ops.capture_health
    select n.*
    from (
        select
            d.device,
            moment as checked_at,
            case
                when bool_or(c.verdict = 'bad') then 'incident'
                when exists (
                    select from ops.incidents as i
                    where i.device = d.device and i.resolved_at is null
                ) then 'recovering'
                when bool_or(c.verdict = 'unknown') then 'unknown'
                when bool_or(c.verdict = 'excused') then 'excused'
                else 'ok'
            end as status,
            coalesce(
                string_agg(c.detail, '; ' order by c.kind) filter (where c.verdict = 'bad'),
                string_agg(c.detail, '; ' order by c.kind) filter (where c.verdict <> 'ok'),
                ''
            ) as detail,
            max(b.heartbeat_at) as heartbeat_at,
            max(coalesce(d.newest_event_at, b.newest_event_at)) as newest_event_at,
            extract(epoch from moment - max(b.heartbeat_at))::double precision,
            extract(
                epoch from moment - max(coalesce(d.newest_event_at, b.newest_event_at))
            )::double precision,
            max(c.value) filter (where c.kind = 'clock') as skew_seconds,
            coalesce(max(c.value) filter (where c.kind = 'gap'), 0)::bigint as missing_numbers,
            count(distinct g.day) as missing_days,
            max(c.value) filter (where c.kind = 'silence') as expected_events,
            max(c.probability) filter (where c.kind = 'silence') as silence_probability
        from ops.capture_devices as d
        inner join capture_found as c on d.device = c.device
        left join lateral unnest(
            case when c.kind in ('late', 'empty', 'gap') and c.verdict = 'bad' then c.days end
        ) as g (day) on true
        left join ops.last_heartbeats as b on d.device = b.device
        group by d.device
    ) as n
    left join lateral (
        select * from ops.capture_health as h where h.device = n.device
        order by h.checked_at desc
        limit 1
    ) as o on true
    where
        o.device is null
        or moment - o.checked_at >= interval '15 minutes'
        or (n.status, n.missing_numbers, n.missing_days)
        is distinct from (o.status, o.missing_numbers, o.missing_days)
    on conflict (device, checked_at) do nothing;

    delete from ops.capture_health as h where h.checked_at < moment - interval '90 days';
    delete from ops.heartbeats as h
    where
        h.beat_at < ops.looks_back_to(h.device, moment)
        and exists (
            select from ops.heartbeats as n where n.device = h.device and n.beat_id > h.beat_id
        );
    delete from ops.capture_hours as h where h.business_day < moment::date - 70;
    drop table capture_found;
end
$$;

-- Rows that came late of files whose numbers or days had been missing. Where a time is asked for
-- instead of days, `callhouse.capture` asks the staging table.
create or replace function ops.count_back_fill(wanted bigint) returns void
language sql as $$
    update ops.incidents as i set
        back_filled_rows = x.staged_rows, back_filled_days = x.days, back_filled_at = x.landed_at
    from (
        select
            coalesce(sum(u.staged_rows), 0) as staged_rows,
            count(distinct u.business_day) as days,
            max(t.landed_at) as landed_at
        from ops.incidents as n
        inner join ops.capture_devices as d on n.device = d.device
        inner join ops.units as t
            on
                d.source = t.source
                and t.record = any(d.records)
                and t.landed_at > n.opened_at
        inner join ops.unit_days as u on t.unit_id = u.unit_id and u.staged_rows > 0
        where
            n.incident_id = wanted
            and (
                u.business_day = any(n.days)
                or exists (
                    select from jsonb_to_recordset(n.evidence) as e (
                        series text, day text, first numeric, last numeric
                    )
                    inner join ops.capture_files as f
                        on
                            f.device = n.device
                            and f.unit_id = t.unit_id
                            and f.series = e.series
                            and f.day_text is not distinct from e.day
                            and f.number between e.first and e.last
                )
            )
    ) as x
    where i.incident_id = wanted
$$;

-- ---------------------------------------------------------------- what readers see
create or replace view bi.fct_capture_health with (security_barrier) as
select
    h.checked_at,
    h.device,
    d.kind as device_kind,
    d.label as device_name,
    d.owner,
    h.status,
    h.detail,
    h.heartbeat_at,
    h.newest_event_at,
    h.heartbeat_age_seconds,
    h.lag_seconds,
    h.skew_seconds,
    h.missing_numbers,
    h.missing_days,
    h.expected_events,
    h.silence_probability
from ops.capture_health as h
inner join ops.capture_devices as d on h.device = d.device
where sec.reads_ledger();

create or replace view bi.capture_status with (security_barrier) as
select h.*
from (
    select distinct on (n.device) n.*
    from bi.fct_capture_health as n
    order by n.device, n.checked_at desc
) as h
inner join ops.capture_devices as d on h.device = d.device
where d.retired_at is null;

create or replace view bi.fct_incidents with (security_barrier) as
select
    i.incident_id,
    i.device,
    d.kind as device_kind,
    d.source,
    i.kind,
    case
        when i.resolved_at is not null then 'resolved'
        when i.well_since is not null then 'recovering'
        when i.acknowledged_at is not null then 'acknowledged'
        else 'open'
    end as status,
    i.owner,
    i.detail,
    i.opened_at,
    i.escalated_at,
    i.acknowledged_at,
    i.acknowledged_by,
    i.resolved_at,
    i.resolved_by,
    i.resolution,
    extract(epoch from i.acknowledged_at - i.opened_at)::double precision as acknowledge_seconds,
    extract(epoch from i.resolved_at - i.opened_at)::double precision as resolve_seconds,
    cardinality(i.days) as affected_days,
    i.days[1] as first_affected_day,
    i.back_filled_rows,
    i.back_filled_days,
    r.rebuilt_days
from ops.incidents as i
inner join ops.capture_devices as d on i.device = d.device
-- Days of which rows came late and whose published version knows them.
left join lateral (
    select count(*) as rebuilt_days
    from ops.published_days as p
    where
        p.business_day = any(i.days)
        and p.lane = 'facts'
        and p.published_at > i.back_filled_at
        and not exists (
            select from ops.dirty_marks as m
            where m.business_day = p.business_day and m.lane = p.lane
        )
) as r on i.back_filled_rows > 0
where sec.reads_ledger();

grant select on bi.fct_capture_health, bi.capture_status, bi.fct_incidents to callhouse_reader;

comment on view bi.fct_capture_health is
'One row per device and check, kept when something changed and every 15 minutes.';
comment on view bi.capture_status is 'One row per device: its newest check.';
comment on view bi.fct_incidents is
'One row per incident of capture: what, whose, when opened, acknowledged, resolved, back-filled.';

reset role;
