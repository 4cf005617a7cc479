-- One row per time that a call of a delimited feed recorded.
-- Windows are cut by business_day too: only then do filters on days reach the partitions.
with legs as (
    select * from {{ source('staging', 'delimited_legs') }}
),

-- Arrival and end are of the call and stand on each of its legs: the first and the last tell them.
placed as (
    select
        *,
        leg_number = min(leg_number) over (partition by call_id, source, business_day) as is_first,
        leg_number = max(leg_number) over (partition by call_id, source, business_day) as is_last
    from legs
    where superseded_by is null
),

events as (
    select
        placed.source,
        placed.call_id,
        placed.leg_number,
        placed.business_day,
        event.place,
        event.event,
        event.event_at,
        case when event.has_queue then placed.queue_id end as queue_id,
        case when event.has_agent then placed.agent_id end as agent_id
    from placed
    cross join
        lateral (
            values
            (1, 'arrived', false, false, case when placed.is_first then placed.arrived_at end),
            (2, 'ivr_entered', false, false, placed.ivr_entered_at),
            (3, 'ivr_left', false, false, placed.ivr_left_at),
            (4, 'queue_entered', true, false, placed.queue_entered_at),
            (5, 'queue_left', true, false, placed.queue_left_at),
            (6, 'answered', true, true, placed.answered_at),
            (7, 'released', true, true, placed.released_at),
            (8, 'ended', false, false, case when placed.is_last then placed.ended_at end)
        ) as event (place, event, has_queue, has_agent, event_at)
    where event.event_at is not null
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by event_at, leg_number, place
        ))::integer as event_number,
        'legs' as record,
        event,
        queue_id,
        agent_id,
        business_day,
        event_at
    from events
)

select * from final
