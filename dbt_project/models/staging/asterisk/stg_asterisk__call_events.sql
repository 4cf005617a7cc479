-- One row per event of a call as the queue log of an Asterisk feed has it.
with events as (
    select * from {{ source('staging', 'asterisk_events') }}
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            -- The clock ticks in seconds: within one, what began before comes first, so that a
            -- conversation ends before the next queue is entered; the log's bytes decide the rest.
            order by event_at, began_at, event = 'WRAPUPSTART', row_hash
        ))::integer as event_number,
        'queue_log' as record,
        event,
        queue_id,
        agent_id,
        business_day,
        event_at
    from events
    where call_id is not null
)

select * from final
