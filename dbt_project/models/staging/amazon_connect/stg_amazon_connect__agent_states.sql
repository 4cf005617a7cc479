-- One row per interval of an agent in Amazon Connect in one state, cut at local midnights.
-- Only of the claimed days: an event of the day before may still be true today.
with stretches as (
    select * from {{ ref('base_amazon_connect__agent_stretches') }}
),

sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

days as (
    select
        stretches.source,
        stretches.agent_id,
        stretches.state,
        stretches.reason,
        stretches.call_id,
        stretches.queue_id,
        stretches.is_provisional,
        day::date as business_day,
        greatest(stretches.started_at, day::timestamp at time zone sources.time_zone)
            as started_at,
        least(
            stretches.ended_at,
            (day + interval '1 day')::timestamp at time zone sources.time_zone
        ) as ended_at,
        stretches.ended_at > (day + interval '1 day')::timestamp at time zone sources.time_zone
            as goes_on
    from stretches
    inner join sources on stretches.source = sources.source
    cross join
        lateral generate_series(
            (stretches.started_at at time zone sources.time_zone)::date,
            (stretches.ended_at at time zone sources.time_zone)::date,
            interval '1 day'
        ) as day
    where stretches.state is not null
),

claimed as (
    select * from days
    where business_day in ({{ claimed_days() }}) and ended_at > started_at
),

followed as (
    select
        *,
        lag((ended_at, state, reason, call_id, queue_id)) over agent_day as before
    from claimed
    window agent_day as (
        partition by agent_id, source, business_day order by started_at
    )
),

-- A heart beat prolongs a state and begins none.
numbered as (
    select
        *,
        count(*) filter (
            where before is distinct from (started_at, state, reason, call_id, queue_id)
        ) over (
            partition by agent_id, source, business_day order by started_at
        ) as interval_number
    from followed
),

final as (
    select
        source,
        agent_id,
        min(state) as state,
        min(reason) as reason,
        min(call_id) as call_id,
        min(queue_id) as queue_id,
        bool_or(is_provisional and not goes_on) as is_provisional,
        business_day,
        min(started_at) as started_at,
        max(ended_at) as ended_at
    from numbered
    group by agent_id, source, business_day, interval_number
)

select * from final
