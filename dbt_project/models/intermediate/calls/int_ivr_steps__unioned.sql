-- One row per step of a call in an IVR menu or with a voice bot, of a claimed day.
-- The one place where IVR steps are filtered to the claimed days.
-- Vendors that know nothing of the kind are absent; `typed` keeps the relation then.
with typed as (
    select
        null::text as source,
        null::text as call_id,
        null::integer as step_number,
        null::text as channel,
        null::text as node,
        null::text as outcome,
        null::numeric as step_seconds,
        null::date as business_day,
        null::timestamptz as entered_at,
        null::timestamptz as left_at
    where false
),

unioned as (
    select * from typed
    union all
    select * from {{ ref('stg_asterisk__ivr_steps') }}
    union all
    select * from {{ ref('stg_delimited__ivr_steps') }}
    union all
    select * from {{ ref('stg_amazon_connect__ivr_steps') }}
),

final as (
    select
        source,
        call_id,
        step_number,
        channel,
        node,
        outcome,
        step_seconds,
        business_day,
        entered_at,
        left_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
