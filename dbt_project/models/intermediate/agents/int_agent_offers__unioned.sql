-- One row per ring of a call to an agent, of a claimed day.
-- The one place where offers are filtered to the claimed days.
-- Vendors that know nothing of the kind are absent; `typed` keeps the relation then.
with typed as (
    select
        null::text as source,
        null::text as call_id,
        null::integer as offer_number,
        null::text as queue_id,
        null::text as agent_id,
        null::text as outcome,
        null::numeric as ring_seconds,
        null::date as business_day,
        null::timestamptz as offered_at,
        null::timestamptz as ended_at
    where false
),

unioned as (
    select * from typed
    union all
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
