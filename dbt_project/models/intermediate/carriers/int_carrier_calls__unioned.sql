-- One row per call that a carrier says it delivered, of the claimed days and their neighbours.
-- The one place where carriers' lines are filtered to the claimed days.
with carrier_calls as (
    select * from {{ ref('stg_delimited__carrier_calls') }}
),

final as (
    select
        source || ':' || carrier_call_id || ':' || extract(epoch from started_at)
            as carrier_call_key,
        source as carrier_source,
        carrier_call_id,
        caller_token,
        coalesce(caller_region_code, 'unknown') as region_code,
        hotline_id,
        trunk,
        coalesce(answered, 'unknown') as answered,
        call_seconds,
        billed_seconds,
        business_day,
        started_at
    from carrier_calls
    where business_day in ({{ claimed_days(reach=1) }})
)

select * from final
