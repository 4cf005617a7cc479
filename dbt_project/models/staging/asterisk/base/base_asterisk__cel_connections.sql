-- One row per channel of an agent that was in a bridge of a customer's call.
with events as (
    select * from {{ ref('base_asterisk__cel_events') }}
),

bounds as (
    select
        *,
        lead(event_at) over (
            partition by source, business_day, call_id, unique_id
            order by position
        ) as left_at
    from events
    where
        is_customers
        and agent_id is not null
        and event in ('BRIDGE_ENTER', 'BRIDGE_EXIT', 'HANGUP', 'CHAN_END')
),

-- Who leaves a bridge and comes back (a colleague is asked in between) is one connection.
bridged as (
    select
        source,
        business_day,
        call_id,
        unique_id,
        min(agent_id) as agent_id,
        case
            when bool_and(left_at is not null)
                then trim_scale(round(sum(extract(epoch from left_at - event_at)), 3))
        end as talk_seconds,
        min(event_at) as connected_at,
        case when bool_and(left_at is not null) then max(left_at) end as ended_at
    from bounds
    where event = 'BRIDGE_ENTER'
    group by source, business_day, call_id, unique_id
),

-- Stacked, not joined: filters on days then reach the partitions.
parts as (
    select
        source,
        call_id,
        unique_id,
        agent_id,
        null as transfer_type,
        talk_seconds,
        business_day,
        connected_at,
        ended_at
    from bridged
    union all
    select
        source,
        call_id,
        unique_id,
        null as agent_id,
        case event when 'BLINDTRANSFER' then 'blind' else 'attended' end as transfer_type,
        null as talk_seconds,
        business_day,
        null as connected_at,
        null as ended_at
    from events
    where is_customers and event in ('BLINDTRANSFER', 'ATTENDEDTRANSFER')
),

final as (
    select
        source,
        call_id,
        max(agent_id) as agent_id,
        max(transfer_type) as transfer_type,
        max(talk_seconds) as talk_seconds,
        business_day,
        max(connected_at) as connected_at,
        max(ended_at) as ended_at
    from parts
    group by source, business_day, call_id, unique_id
    having max(connected_at) is not null
)

select * from final
