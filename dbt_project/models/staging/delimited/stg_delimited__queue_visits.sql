-- One row per visit of a call to a queue of a delimited feed.
-- Windows are cut by business_day too: only then do filters on days reach the partitions.
with legs as (
    select * from {{ source('staging', 'delimited_legs') }}
),

-- Contained and phantom legs never asked for an agent; a hang-up in the IVR or with the bot comes
-- before the queue, even where the menu had already named one.
visits as (
    select *
    from legs
    where
        superseded_by is null
        and queue_id is not null
        and outcome not in ('contained', 'phantom')
        and (abandon_stage is null or abandon_stage not in ('ivr', 'bot'))
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by coalesce(queue_entered_at, arrived_at), leg_number
        ))::integer as visit_number,
        queue_id,
        agent_id,
        outcome,
        abandon_stage,
        wait_seconds,
        ring_seconds,
        business_day,
        coalesce(queue_entered_at, arrived_at) as entered_at,
        coalesce(queue_left_at, answered_at) as left_at
    from visits
)

select * from final
