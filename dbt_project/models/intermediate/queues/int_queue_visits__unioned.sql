-- One row per visit of a call to a queue, of a claimed day.
-- The one place where visits are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_delimited__queue_visits') }}
    union all
    select * from {{ ref('stg_asterisk__queue_visits') }}
    union all
    select * from {{ ref('stg_amazon_connect__queue_visits') }}
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
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
