-- One row per call of ours on a hotline that carriers tell of, of the claimed days and neighbours.
-- Any source: a carrier delivers to hotlines, and knows nothing of what records their calls.
with calls as (
    select * from {{ published('fct_calls') }}
    where business_day in ({{ claimed_days(reach=1) }})
),

carrier_calls as (
    select * from {{ ref('int_carrier_calls__unioned') }}
),

final as (
    select
        call_key,
        source,
        call_id,
        caller_token,
        region_code,
        hotline_id,
        outcome,
        call_seconds,
        business_day,
        arrived_at
    from calls
    where
        calls = 1
        and channel <> 'callback'
        and hotline_id in (select carrier_calls.hotline_id from carrier_calls)
)

select * from final
