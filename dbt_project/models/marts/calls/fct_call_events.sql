-- One row per event of a call as its source recorded it.
with events as (
    select * from {{ ref('int_call_events__unioned') }}
),

calls as (
    select * from {{ ref('int_calls__unioned') }}
),

agents as (
    select * from {{ ref('int_agents__versions') }}
),

regions as (
    select * from {{ ref('dim_region') }}
),

-- Left joins throughout: a dimension that is missing must never cost an event.
described as (
    select
        events.source,
        events.call_id,
        events.event_number,
        events.record,
        events.event,
        events.business_day,
        events.event_at,
        coalesce(events.queue_id, 'none') as queue_id,
        coalesce(events.agent_id, 'none') as agent_id,
        coalesce(agents.team_id, case when events.agent_id is null then 'none' else 'unknown' end)
            as team_id,
        coalesce(calls.caller_region_code, 'unknown') as region_code
    from events
    left join calls
        on
            events.source = calls.source
            and events.business_day = calls.business_day
            and events.call_id = calls.call_id
    left join agents
        on
            events.source = agents.source
            and events.agent_id = agents.agent_id
            and events.business_day >= agents.valid_from
            and (agents.valid_to is null or events.business_day < agents.valid_to)
),

final as (
    select
        described.business_day,
        described.source || ':' || described.call_id || ':' || described.event_number as event_key,
        described.source || ':' || described.call_id as call_key,
        described.source,
        described.call_id,
        described.event_number,
        described.record,
        described.event,
        described.queue_id,
        described.agent_id,
        described.team_id,
        described.region_code,
        coalesce(regions.region_name, described.region_code) as region_name,
        described.event_at,
        1 as call_events
    from described
    left join regions on described.region_code = regions.region_code
)

select * from final
