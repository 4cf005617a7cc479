-- One row per step of a call in an IVR menu or with a voice bot, of a claimed day.
-- The one place where IVR steps are filtered to the claimed days.
with unioned as (
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
