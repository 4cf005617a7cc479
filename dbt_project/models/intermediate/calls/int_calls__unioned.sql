-- One row per call of a claimed day.
-- The one place where calls are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_delimited__calls') }}
    union all
    select * from {{ ref('stg_asterisk__calls') }}
    union all
    select * from {{ ref('stg_amazon_connect__calls') }}
),

final as (
    select
        source,
        call_id,
        caller_token,
        caller_region_code,
        caller_carrier,
        hotline_id,
        channel,
        business_type,
        priority,
        hangup_party,
        outcome,
        abandon_stage,
        ivr_seconds,
        data_issues,
        business_day,
        arrived_at,
        ended_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
