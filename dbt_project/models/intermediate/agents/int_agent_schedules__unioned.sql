-- One row per planned stretch of an agent's shift, cut at local midnights, of a claimed day.
-- The one place where planned stretches are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_delimited__agent_schedules') }}
),

final as (
    select
        source,
        agent_id,
        activity,
        is_paid,
        shift_date,
        business_day,
        began_at,
        starts_at,
        ends_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
