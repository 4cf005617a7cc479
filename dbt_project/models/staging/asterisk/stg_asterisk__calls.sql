-- One row per call of an Asterisk exchange.
with calls as (
    select * from {{ ref('base_asterisk__calls') }}
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
        null::text as business_type,
        null::text as priority,
        hangup_party,
        outcome,
        abandon_stage,
        ivr_seconds,
        data_issues,
        business_day,
        arrived_at,
        ended_at
    from calls
)

select * from final
