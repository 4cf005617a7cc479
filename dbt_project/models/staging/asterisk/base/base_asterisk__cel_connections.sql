-- One row per channel of an agent that was in a bridge of a customer's call.
with events as (
    select * from {{ ref('base_asterisk__cel_events') }}
),

bounds as (
    select
        *,
        min(event_at) filter (where event in ('BRIDGE_EXIT', 'HANGUP', 'CHAN_END')) over (
            partition by call_id, source, business_day, unique_id
            order by position
            rows between 1 following and unbounded following
        ) as left_at
    from events
    where
        is_customers
        and agent_id is not null
        and event in (
            'BRIDGE_ENTER',
            'BRIDGE_EXIT',
            'BLINDTRANSFER',
            'ATTENDEDTRANSFER',
            'HANGUP',
            'CHAN_END'
        )
),

-- Who leaves a bridge and comes back (a colleague is asked in between) is one connection.
connections as (
    select
        source,
        business_day,
        call_id,
        unique_id,
        min(agent_id) as agent_id,
        coalesce(bool_or(starts_with(channel, 'Local/')), false) as is_local,
        case
            when bool_or(event = 'ATTENDEDTRANSFER') then 'attended'
            when bool_or(event = 'BLINDTRANSFER') then 'blind'
        end as transfer_type,
        bool_and(left_at is not null) filter (where event = 'BRIDGE_ENTER') as has_ended,
        sum(extract(epoch from left_at - event_at)) filter (where event = 'BRIDGE_ENTER')
            as talk_seconds,
        min(event_at) filter (where event = 'BRIDGE_ENTER') as connected_at,
        max(left_at) filter (where event = 'BRIDGE_ENTER') as ended_at
    from bounds
    group by call_id, source, business_day, unique_id
),

-- A Local channel stands between the caller and an agent's device until both are joined: where the
-- device is seen too, it is no connection of its own.
told_apart as (
    select
        *,
        bool_or(not is_local) over (partition by call_id, source, business_day) as has_device
    from connections
    where connected_at is not null
),

final as (
    select
        source,
        call_id,
        agent_id,
        transfer_type,
        case when has_ended then trim_scale(round(talk_seconds, 3)) end as talk_seconds,
        business_day,
        connected_at,
        case when has_ended then ended_at end as ended_at
    from told_apart
    where not is_local or not has_device
)

select * from final
