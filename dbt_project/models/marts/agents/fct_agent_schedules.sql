-- One row per planned stretch of an agent, cut at local midnights and where another lies on top.
with schedules as (
    select * from {{ ref('int_agent_schedules__tiled') }}
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

-- Left joins throughout: a dimension that is missing must never cost a plan.
described as (
    select
        schedules.source,
        schedules.agent_id,
        schedules.activity,
        schedules.is_paid,
        schedules.shift_date,
        schedules.business_day,
        schedules.starts_at,
        schedules.ends_at,
        coalesce(agents.agent_name, schedules.agent_id) as agent_name,
        coalesce(agents.team_id, 'unknown') as team_id,
        coalesce(agents.team_name, 'Unknown team') as team_name,
        coalesce(agents.region_code, 'unknown') as region_code,
        coalesce(sources.time_zone, 'UTC') as time_zone,
        trim_scale(extract(epoch from schedules.ends_at - schedules.starts_at)) as seconds
    from schedules
    left join agents
        on
            schedules.source = agents.source
            and schedules.agent_id = agents.agent_id
            and schedules.business_day >= agents.valid_from
            and (agents.valid_to is null or schedules.business_day < agents.valid_to)
    left join sources on schedules.source = sources.source
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
        described.activity,
        described.is_paid,
        described.shift_date,
        described.starts_at,
        described.ends_at,
        {{ local_time_columns(
            'described.starts_at', 'described.business_day', 'described.time_zone'
        ) }},
        case when described.activity <> 'absence' then described.seconds else 0 end
            as planned_seconds,
        case when described.activity = 'work' then described.seconds else 0 end
            as planned_work_seconds,
        case when described.is_paid then described.seconds else 0 end as planned_paid_seconds
    from described
    left join regions on described.region_code = regions.region_code
)

select * from final
