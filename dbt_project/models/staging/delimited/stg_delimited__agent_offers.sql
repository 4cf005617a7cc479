-- One row per ring of a call of a delimited feed to an agent.
-- Windows are cut by business_day too: only then do filters on days reach the partitions.
with offers as (
    select * from {{ source('staging', 'delimited_offers') }}
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by offered_at, agent_id
        ))::integer as offer_number,
        queue_id,
        agent_id,
        outcome,
        ring_seconds,
        business_day,
        offered_at,
        ended_at
    from offers
    where superseded_by is null
)

select * from final
