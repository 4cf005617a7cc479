-- One row per connection of a call with an agent of an Asterisk feed.
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

-- An agent that the log calls NONE has answered all the same. Who only finished a call (its CONNECT
-- is lost) has talked.
connections as (
    select
        visits.*,
        wrapups.acw_seconds
    from visits
    left join wrapups
        on
            visits.source = wrapups.source
            and visits.business_day = wrapups.call_day
            and visits.call_id = wrapups.call_id
            and visits.visit_number = wrapups.visit_number
    where visits.is_connected
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
        acw_seconds,
        business_day,
        connected_at,
        ended_at
    from connections
)

select * from final
