-- One row per local quarter of an hour and queue of a source, with zeros where nothing happened.
with visits as (
    select * from {{ ref('fct_queue_visits') }}
),

connections as (
    select * from {{ ref('fct_agent_connections') }}
),

calls as (
    select * from {{ ref('int_calls__unioned') }}
),

queues as (
    select * from {{ ref('int_queues__versions') }}
),

business_types as (
    select * from {{ ref('dim_business_type') }}
),

sources as (
    select * from {{ ref('dim_source') }}
),

visit_sums as (
    select
        business_day,
        interval_start_at,
        source,
        queue_id,
        sum(queue_visits) as queue_visits,
        sum(calls_offered) as calls_offered,
        sum(calls_answered) as calls_answered,
        sum(calls_abandoned) as calls_abandoned,
        sum(answered_within_target) as answered_within_target,
        sum(abandoned_within_target) as abandoned_within_target,
        sum(answered_within_15s) as answered_within_15s,
        sum(answered_within_20s) as answered_within_20s,
        sum(answered_within_30s) as answered_within_30s,
        sum(short_abandons) as short_abandons,
        sum(answered_waits) as answered_waits,
        sum(answered_wait_seconds) as answered_wait_seconds,
        sum(abandoned_waits) as abandoned_waits,
        sum(abandoned_wait_seconds) as abandoned_wait_seconds,
        max(longest_wait_seconds) as longest_wait_seconds
    from visits
    group by business_day, interval_start_at, source, queue_id
),

connection_sums as (
    select
        business_day,
        interval_start_at,
        source,
        queue_id,
        sum(agent_connections) as agent_connections,
        sum(connections_handled) as connections_handled,
        sum(connections_held) as connections_held,
        sum(transfers) as transfers,
        sum(transfers_blind) as transfers_blind,
        sum(transfers_attended) as transfers_attended,
        sum(transfers_consult) as transfers_consult,
        sum(talk_seconds) as talk_seconds,
        sum(hold_seconds) as hold_seconds,
        sum(acw_seconds) as acw_seconds,
        sum(handle_seconds) as handle_seconds
    from connections
    group by business_day, interval_start_at, source, queue_id
),

-- A source is dense on the days on which it has a call, so that a day stays a function of its own
-- rows: another source's or day's arrival changes nothing in it.
days as (
    select distinct
        source,
        business_day
    from calls
),

day_starts as (
    select
        days.source,
        days.business_day,
        days.business_day::timestamp at time zone sources.time_zone as starts_at,
        (days.business_day + 1)::timestamp at time zone sources.time_zone as ends_at
    from days
    inner join sources on days.source = sources.source
),

day_queues as (
    select
        days.source,
        days.business_day,
        queues.queue_id
    from days
    inner join queues
        on days.source = queues.source and days.business_day >= queues.listed_from
    union
    select
        source,
        business_day,
        queue_id
    from visit_sums
    union
    select
        source,
        business_day,
        queue_id
    from connection_sums
),

grid as (
    select
        day_starts.business_day,
        day_queues.source,
        day_queues.queue_id,
        generate_series(
            day_starts.starts_at, day_starts.ends_at - interval '15 minutes', interval '15 minutes'
        ) as interval_start_at
    from day_starts
    inner join day_queues
        on
            day_starts.source = day_queues.source
            and day_starts.business_day = day_queues.business_day
    -- Calls that reach their queue after midnight add intervals beyond their day.
    union
    select
        business_day,
        source,
        queue_id,
        interval_start_at
    from visit_sums
    union
    select
        business_day,
        source,
        queue_id,
        interval_start_at
    from connection_sums
),

final as (
    select
        grid.business_day,
        grid.interval_start_at,
        grid.source,
        grid.queue_id,
        coalesce(queues.queue_name, grid.queue_id) as queue_name,
        coalesce(queues.business_type, 'unknown') as business_type,
        coalesce(business_types.product_line, 'unknown') as product_line,
        to_char(grid.interval_start_at at time zone sources.time_zone, 'HH24:MI') as local_interval,
        extract(hour from grid.interval_start_at at time zone sources.time_zone)::integer
            as local_hour,
        extract(isodow from grid.business_day)::integer as iso_weekday,
        date_trunc('week', grid.business_day)::date as week_start,
        date_trunc('month', grid.business_day)::date as month_start,
        coalesce(visit_sums.queue_visits, 0) as queue_visits,
        coalesce(visit_sums.calls_offered, 0) as calls_offered,
        coalesce(visit_sums.calls_answered, 0) as calls_answered,
        coalesce(visit_sums.calls_abandoned, 0) as calls_abandoned,
        coalesce(visit_sums.answered_within_target, 0) as answered_within_target,
        coalesce(visit_sums.abandoned_within_target, 0) as abandoned_within_target,
        coalesce(visit_sums.answered_within_15s, 0) as answered_within_15s,
        coalesce(visit_sums.answered_within_20s, 0) as answered_within_20s,
        coalesce(visit_sums.answered_within_30s, 0) as answered_within_30s,
        coalesce(visit_sums.short_abandons, 0) as short_abandons,
        coalesce(visit_sums.answered_waits, 0) as answered_waits,
        coalesce(visit_sums.answered_wait_seconds, 0) as answered_wait_seconds,
        coalesce(visit_sums.abandoned_waits, 0) as abandoned_waits,
        coalesce(visit_sums.abandoned_wait_seconds, 0) as abandoned_wait_seconds,
        visit_sums.longest_wait_seconds,
        coalesce(connection_sums.agent_connections, 0) as agent_connections,
        coalesce(connection_sums.connections_handled, 0) as connections_handled,
        coalesce(connection_sums.connections_held, 0) as connections_held,
        coalesce(connection_sums.transfers, 0) as transfers,
        coalesce(connection_sums.transfers_blind, 0) as transfers_blind,
        coalesce(connection_sums.transfers_attended, 0) as transfers_attended,
        coalesce(connection_sums.transfers_consult, 0) as transfers_consult,
        coalesce(connection_sums.talk_seconds, 0) as talk_seconds,
        coalesce(connection_sums.hold_seconds, 0) as hold_seconds,
        coalesce(connection_sums.acw_seconds, 0) as acw_seconds,
        coalesce(connection_sums.handle_seconds, 0) as handle_seconds
    from grid
    inner join sources on grid.source = sources.source
    left join queues
        on
            grid.source = queues.source
            and grid.queue_id = queues.queue_id
            and grid.business_day >= queues.valid_from
            and (queues.valid_to is null or grid.business_day < queues.valid_to)
    left join business_types on queues.business_type = business_types.business_type
    left join visit_sums
        on
            grid.business_day = visit_sums.business_day
            and grid.interval_start_at = visit_sums.interval_start_at
            and grid.source = visit_sums.source
            and grid.queue_id = visit_sums.queue_id
    left join connection_sums
        on
            grid.business_day = connection_sums.business_day
            and grid.interval_start_at = connection_sums.interval_start_at
            and grid.source = connection_sums.source
            and grid.queue_id = connection_sums.queue_id
)

select * from final
