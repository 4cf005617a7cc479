-- One row per connection of a call with an agent of an Asterisk feed.
with visits as (
    select * from {{ ref('base_asterisk__visits') }}
),

-- An agent that the log calls NONE has answered all the same. Who only finished a call (its CONNECT
-- is lost) has talked.
connections as (
    select * from visits
    where is_connected
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by source, business_day, call_id
            order by connected_at, visit_number
        ))::integer as connection_number,
        queue_id,
        agent_id,
        transfer_type,
        ring_seconds,
        talk_seconds,
        null::numeric as hold_seconds,
        null::numeric as acw_seconds,
        business_day,
        connected_at,
        ended_at
    from connections
)

select * from final
