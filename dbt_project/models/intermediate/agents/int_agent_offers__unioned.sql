-- One row per ring of a call to an agent, of a claimed day.
-- The one place where offers are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_asterisk__agent_offers') }}
    union all
    select * from {{ ref('stg_delimited__agent_offers') }}
    union all
    select * from {{ ref('stg_amazon_connect__agent_offers') }}
),

final as (
    select
        source,
        call_id,
        offer_number,
        queue_id,
        agent_id,
        outcome,
        ring_seconds,
        business_day,
        offered_at,
        ended_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
