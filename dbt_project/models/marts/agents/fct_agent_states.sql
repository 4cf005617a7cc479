-- One row per interval in which an agent was in one state, cut at local midnights.
with states as (
    select * from {{ ref('int_agent_states__unioned') }}
),

queues as (
    select * from {{ ref('int_queues__versions') }}
),

agents as (
    select * from {{ ref('int_agents__versions') }}
),

regions as (
    select * from {{ ref('dim_region') }}
),

sources as (
    select * from {{ ref('dim_source') }}
),

-- Left joins throughout: a dimension that is missing must never cost a state.
described as (
    select
        states.source,
        states.agent_id,
        states.state,
        states.reason,
        states.call_id,
        states.is_provisional,
        states.business_day,
        states.started_at,
        states.ended_at,
        coalesce(states.queue_id, 'none') as queue_id,
        coalesce(agents.agent_name, states.agent_id) as agent_name,
        coalesce(agents.team_id, 'unknown') as team_id,
        coalesce(agents.team_name, 'Unknown team') as team_name,
        coalesce(agents.region_code, 'unknown') as region_code,
        coalesce(sources.time_zone, 'UTC') as time_zone,
        trim_scale(extract(epoch from states.ended_at - states.started_at)) as state_seconds,
        row_number() over (
            partition by states.agent_id, states.source, states.business_day
            order by states.started_at
        ) as place
    from states
    left join agents
        on
            states.source = agents.source
            and states.agent_id = agents.agent_id
            and states.business_day >= agents.valid_from
            and (agents.valid_to is null or states.business_day < agents.valid_to)
    left join sources on states.source = sources.source
),

final as (
    select
        described.business_day,
        described.source,
        described.agent_id,
        described.agent_name,
        described.team_id,
        described.team_name,
        described.region_code,
        coalesce(regions.region_name, described.region_code) as region_name,
        described.queue_id,
        coalesce(queues.queue_name, described.queue_id) as queue_name,
        described.state,
        described.reason,
        described.call_id,
        described.is_provisional,
        described.started_at,
        described.ended_at,
        {{ local_time_columns(
            'described.started_at', 'described.business_day', 'described.time_zone'
        ) }},
        (described.place = 1)::integer as agent_days,
        described.state_seconds as login_seconds,
        case when described.is_provisional then described.state_seconds else 0 end
            as provisional_login_seconds,
        case when described.state = 'ready' then described.state_seconds else 0 end
            as ready_seconds,
        case when described.state = 'pause' then described.state_seconds else 0 end
            as pause_seconds,
        case when described.state = 'ring' then described.state_seconds else 0 end
            as state_ring_seconds,
        case when described.state = 'dial' then described.state_seconds else 0 end
            as state_dial_seconds,
        case when described.state = 'consult' then described.state_seconds else 0 end
            as state_consult_seconds,
        case when described.state = 'talk' then described.state_seconds else 0 end
            as state_talk_seconds,
        case when described.state = 'hold' then described.state_seconds else 0 end
            as state_hold_seconds,
        case when described.state = 'acw' then described.state_seconds else 0 end
            as state_acw_seconds
    from described
    left join queues
        on
            described.source = queues.source
            and described.queue_id = queues.queue_id
            and described.business_day >= queues.valid_from
            and (queues.valid_to is null or described.business_day < queues.valid_to)
    left join regions on described.region_code = regions.region_code
)

select * from final
