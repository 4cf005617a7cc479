-- One row per connection of a call with an agent.
with connections as (
    select * from {{ ref('int_agent_connections__unioned') }}
),

calls as (
    select * from {{ ref('int_calls__unioned') }}
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

business_types as (
    select * from {{ ref('dim_business_type') }}
),

sources as (
    select * from {{ ref('dim_source') }}
),

-- Left joins throughout: a dimension that is missing must never cost a connection.
described as (
    select
        connections.source,
        connections.call_id,
        connections.connection_number,
        connections.transfer_type,
        connections.ring_seconds,
        connections.talk_seconds,
        connections.hold_seconds,
        connections.acw_seconds,
        connections.business_day,
        connections.connected_at,
        connections.ended_at,
        coalesce(connections.agent_id, 'unknown') as agent_id,
        coalesce(connections.queue_id, 'none') as queue_id,
        coalesce(calls.channel, 'unknown') as channel,
        coalesce(calls.business_type, 'unknown') as business_type,
        coalesce(calls.hotline_id, 'unknown') as hotline_id,
        coalesce(agents.agent_name, connections.agent_id, 'Unknown agent') as agent_name,
        coalesce(agents.team_id, 'unknown') as team_id,
        coalesce(agents.team_name, 'Unknown team') as team_name,
        -- An agent's work belongs to the agent's region; without one, to the caller's.
        coalesce(nullif(agents.region_code, 'unknown'), calls.caller_region_code, 'unknown')
            as region_code,
        coalesce(sources.time_zone, 'UTC') as time_zone,
        coalesce(connections.talk_seconds, 0)
        + coalesce(connections.hold_seconds, 0)
        + coalesce(connections.acw_seconds, 0) as handle_seconds
    from connections
    left join calls
        on
            connections.source = calls.source
            and connections.business_day = calls.business_day
            and connections.call_id = calls.call_id
    left join agents
        on
            connections.source = agents.source
            and coalesce(connections.agent_id, 'unknown') = agents.agent_id
            and connections.business_day >= agents.valid_from
            and (agents.valid_to is null or connections.business_day < agents.valid_to)
    left join sources on connections.source = sources.source
),

final as (
    select
        described.business_day,
        described.source || ':' || described.call_id || ':' || described.connection_number
            as connection_key,
        described.source || ':' || described.call_id as call_key,
        described.source,
        described.call_id,
        described.connection_number,
        described.queue_id,
        coalesce(queues.queue_name, described.queue_id) as queue_name,
        described.agent_id,
        described.agent_name,
        described.team_id,
        described.team_name,
        described.region_code,
        coalesce(regions.region_name, described.region_code) as region_name,
        described.channel,
        described.business_type,
        coalesce(business_types.product_line, 'unknown') as product_line,
        described.hotline_id,
        described.transfer_type,
        described.connected_at,
        described.ended_at,
        {{ local_time_columns(
            'described.connected_at', 'described.business_day', 'described.time_zone'
        ) }},
        1 as agent_connections,
        (described.handle_seconds > 0)::integer as connections_handled,
        coalesce(described.hold_seconds > 0, false)::integer as connections_held,
        (described.transfer_type is not null)::integer as transfers,
        coalesce(described.transfer_type = 'blind', false)::integer as transfers_blind,
        coalesce(described.transfer_type = 'attended', false)::integer as transfers_attended,
        coalesce(described.transfer_type = 'consult', false)::integer as transfers_consult,
        described.ring_seconds,
        described.talk_seconds,
        described.hold_seconds,
        described.acw_seconds,
        described.handle_seconds,
        case when described.handle_seconds > 0 then coalesce(described.talk_seconds, 0) end
            as handled_talk_seconds,
        case
            when described.handle_seconds > 0
                then coalesce(described.talk_seconds * described.talk_seconds, 0)
        end as handled_talk_seconds_squared
    from described
    left join queues
        on
            described.source = queues.source
            and described.queue_id = queues.queue_id
            and described.business_day >= queues.valid_from
            and (queues.valid_to is null or described.business_day < queues.valid_to)
    left join regions on described.region_code = regions.region_code
    left join business_types on described.business_type = business_types.business_type
)

select * from final
