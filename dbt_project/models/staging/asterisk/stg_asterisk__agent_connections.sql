-- One row per connection of a call with an agent of an Asterisk exchange.
-- Records are stacked, not joined: filters on days then reach the partitions of all.
with visits as (
    select * from {{ ref('base_asterisk__visits') }}
),

work as (
    select * from {{ ref('base_asterisk__agent_work') }}
),

-- Of claimed days: which conversation a wrap-up belongs to is told by the agent's other events.
wrapups as (
    select
        source,
        call_day,
        call_id,
        visit_number,
        trim_scale(sum(extract(epoch from ended_at - started_at))) as acw_seconds
    from work
    where state = 'acw' and visit_number is not null
    group by source, call_day, call_id, visit_number
),

cel as (
    select * from {{ ref('base_asterisk__cel_connections') }}
),

cdr as (
    select
        *,
        event_at > min(event_at) over (partition by call_id, source, business_day) as is_later
    from {{ ref('base_asterisk__cdr_records') }}
),

-- An agent that the log calls NONE has answered all the same. Who only finished a call (its CONNECT
-- is lost) has talked.
parts as (
    select
        source,
        call_id,
        1 as rank,
        visit_number,
        queue_id,
        agent_id,
        transfer_type,
        ring_seconds,
        talk_seconds,
        business_day,
        connected_at,
        ended_at
    from visits
    where is_connected
    union all
    select
        source,
        call_id,
        2 as rank,
        null as visit_number,
        null as queue_id,
        agent_id,
        transfer_type,
        null as ring_seconds,
        talk_seconds,
        business_day,
        connected_at,
        ended_at
    from cel
    union all
    -- The billed time is talk only where the answer was the agent's: in a first record whose call
    -- the menu has answered it is everything.
    select
        source,
        call_id,
        3 as rank,
        null as visit_number,
        null as queue_id,
        agent_id,
        null as transfer_type,
        null as ring_seconds,
        case when answered_at > event_at or is_later then billed_seconds end as talk_seconds,
        business_day,
        answered_at as connected_at,
        ended_at
    from cdr
    where is_connected
),

best as (
    select
        *,
        min(rank) over (partition by call_id, source, business_day) as best_rank
    from parts
),

-- A connection of the queue log and one of the channel events are the same where they begin
-- within two seconds, whatever the agent is called in each. When the menu has answered, call
-- detail records do not tell when an agent did, so they count where nothing else does.
ordered as (
    select
        *,
        row_number() over (
            partition by call_id, source, business_day
            order by connected_at, rank, visit_number, agent_id
        ) as position
    from best
    where rank < 3 or best_rank = 3
),

marked as (
    select
        *,
        (
            coalesce(lag(rank) over in_call = rank, true)
            or connected_at > lag(connected_at) over in_call + interval '2 seconds'
        )::integer as is_start
    from ordered
    window
        in_call as (
            partition by call_id, source, business_day
            order by position
        )
),

numbered as (
    select
        *,
        sum(is_start) over (
            partition by call_id, source, business_day
            order by position
        ) as connection_of_call
    from marked
),

connections as (
    select
        source,
        business_day,
        call_id,
        (array_agg(queue_id order by rank))[1] as queue_id,
        (array_agg(agent_id order by rank) filter (where agent_id is not null))[1] as agent_id,
        (array_agg(transfer_type order by rank) filter (where transfer_type is not null))[1]
            as transfer_type,
        (array_agg(ring_seconds order by rank))[1] as ring_seconds,
        (array_agg(talk_seconds order by rank) filter (where talk_seconds is not null))[1]
            as talk_seconds,
        (array_agg(connected_at order by rank))[1] as connected_at,
        (array_agg(ended_at order by rank) filter (where ended_at is not null))[1] as ended_at,
        min(visit_number) as visit_number
    from numbered
    group by call_id, source, business_day, connection_of_call
),

final as (
    select
        connections.source,
        connections.call_id,
        (row_number() over (
            partition by connections.call_id, connections.source, connections.business_day
            order by connections.connected_at, connections.visit_number, connections.agent_id
        ))::integer as connection_number,
        connections.queue_id,
        connections.agent_id,
        connections.transfer_type,
        connections.ring_seconds,
        connections.talk_seconds,
        null::numeric as hold_seconds,
        wrapups.acw_seconds,
        connections.business_day,
        connections.connected_at,
        connections.ended_at
    from connections
    left join wrapups
        on
            connections.source = wrapups.source
            and connections.business_day = wrapups.call_day
            and connections.call_id = wrapups.call_id
            and connections.visit_number = wrapups.visit_number
)

select * from final
