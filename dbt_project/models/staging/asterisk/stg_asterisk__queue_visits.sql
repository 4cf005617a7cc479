-- One row per visit of a call to a queue of an Asterisk feed, refused ones included.
with visits as (
    select * from {{ ref('base_asterisk__visits') }}
),

final as (
    select
        source,
        call_id,
        visit_number,
        queue_id,
        agent_id,
        outcome,
        abandon_stage,
        wait_seconds,
        ring_seconds,
        business_day,
        entered_at,
        left_at
    from visits
)

select * from final
