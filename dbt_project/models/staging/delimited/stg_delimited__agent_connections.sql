-- One row per connection of a call with an agent of a delimited feed.
-- Windows are cut by business_day too: only then do filters on days reach the partitions.
with legs as (
    select * from {{ source('staging', 'delimited_legs') }}
),

-- An answered leg without an agent was still answered: by an agent the feed does not name.
connections as (
    select
        *,
        coalesce(answered_at, queue_left_at, queue_entered_at, arrived_at) as connected_at
    from legs
    where superseded_by is null and outcome = 'answered'
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by connected_at, leg_number
        ))::integer as connection_number,
        queue_id,
        agent_id,
        transfer_type,
        ring_seconds,
        talk_seconds,
        hold_seconds,
        acw_seconds,
        business_day,
        connected_at,
        released_at as ended_at
    from connections
)

select * from final
