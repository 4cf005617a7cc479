-- One row per planned stretch of an agent's shift in a delimited feed, cut at local midnights.
with schedules as (
    select * from {{ source('staging', 'delimited_schedules') }}
),

sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

-- A stretch that runs over midnight is staged on both days; each keeps its own part.
cut as (
    select
        coalesce(schedules.agent_source, schedules.source) as source,
        schedules.agent_id,
        schedules.activity,
        schedules.paid = 'yes' as is_paid,
        schedules.shift_date,
        schedules.business_day,
        schedules.starts_at as began_at,
        greatest(
            schedules.starts_at, schedules.business_day::timestamp at time zone sources.time_zone
        ) as starts_at,
        least(
            schedules.ends_at,
            (schedules.business_day + 1)::timestamp at time zone sources.time_zone
        ) as ends_at
    from schedules
    -- The feed's own zone cut its days, whoever the agents are.
    inner join sources on schedules.source = sources.source
    where schedules.superseded_by is null
),

final as (
    select
        source,
        agent_id,
        activity,
        is_paid,
        shift_date,
        business_day,
        began_at,
        starts_at,
        ends_at
    from cut
    where ends_at > starts_at
)

select * from final
