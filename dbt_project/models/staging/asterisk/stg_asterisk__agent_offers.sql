-- One row per ring of a call to an agent of an Asterisk feed.
with events as (
    select * from {{ source('staging', 'asterisk_events') }}
),

-- AGENTDUMP: the agent picked up and hung up again before the caller was there.
rings as (
    select
        source,
        call_id,
        queue_id,
        agent_id,
        case event
            when 'CONNECT' then 'answered'
            when 'RINGNOANSWER' then 'no_answer'
            when 'RINGCANCELED' then 'cancelled'
            when 'AGENTDUMP' then 'rejected'
        end as outcome,
        ring_seconds,
        row_hash,
        business_day,
        event_at - coalesce(ring_seconds, 0) * interval '1 second' as offered_at,
        event_at as ended_at
    from events
    where
        event in ('CONNECT', 'RINGNOANSWER', 'RINGCANCELED', 'AGENTDUMP')
        and call_id is not null
        and queue_id is not null
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by offered_at, ended_at, row_hash
        ))::integer as offer_number,
        queue_id,
        agent_id,
        outcome,
        ring_seconds,
        business_day,
        offered_at,
        ended_at
    from rings
)

select * from final
