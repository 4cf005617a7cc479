-- One row per interval of an agent of a delimited feed in one state, cut at local midnights.
-- Windows are cut by business_day too: only then do filters on days reach the partitions.
with states as (
    select * from {{ source('staging', 'delimited_agent_states') }}
),

sources as (
    select * from {{ ref('stg_callhouse__sources') }}
),

-- A state that runs over midnight is staged on both days; each keeps its own part.
cut as (
    select
        states.source,
        states.agent_id,
        states.state,
        states.reason,
        states.call_id,
        states.queue_id,
        states.business_day,
        states.started_at as began_at,
        greatest(
            states.started_at, states.business_day::timestamp at time zone sources.time_zone
        ) as started_at,
        least(
            states.ended_at, (states.business_day + 1)::timestamp at time zone sources.time_zone
        ) as ended_at
    from states
    inner join sources on states.source = sources.source
    where states.superseded_by is null and states.ended_at > states.started_at
),

-- An agent is in one state at a time: a state lasts no longer than until the next one begins.
single as (
    select
        source,
        agent_id,
        state,
        reason,
        call_id,
        queue_id,
        business_day,
        started_at,
        least(
            ended_at,
            lead(started_at) over (
                partition by agent_id, source, business_day
                order by started_at, began_at
            )
        ) as ended_at
    from cut
),

final as (
    select
        source,
        agent_id,
        state,
        reason,
        call_id,
        queue_id,
        false as is_provisional,
        business_day,
        started_at,
        ended_at
    from single
    where ended_at > started_at
)

select * from final
