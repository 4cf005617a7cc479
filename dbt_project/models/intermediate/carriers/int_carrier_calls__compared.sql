-- One row per call of either side, of the claimed days and neighbours, matched or not.
-- A day and hotline of which no carrier tells is not compared: it has no row.
with carrier_calls as (
    select * from {{ ref('int_carrier_calls__unioned') }}
),

calls as (
    select * from {{ ref('int_carrier_calls__contacts') }}
),

matched as (
    select * from {{ ref('int_carrier_calls__matched') }}
),

told as (
    select
        business_day,
        hotline_id,
        case when min(carrier_source) = max(carrier_source) then min(carrier_source) end
            as carrier_source
    from carrier_calls
    group by business_day, hotline_id
),

from_carriers as (
    select
        'carrier' as side,
        carrier_calls.carrier_call_key as compared_key,
        carrier_calls.carrier_source,
        carrier_calls.carrier_call_id,
        null::text as source,
        null::text as call_id,
        carrier_calls.caller_token,
        carrier_calls.region_code,
        carrier_calls.hotline_id,
        carrier_calls.trunk,
        carrier_calls.answered,
        null::text as outcome,
        carrier_calls.call_seconds,
        carrier_calls.billed_seconds,
        matched.call_key is not null as is_matched,
        matched.offset_seconds,
        carrier_calls.business_day,
        carrier_calls.started_at
    from carrier_calls
    left join matched on carrier_calls.carrier_call_key = matched.carrier_call_key
),

-- What no carrier knows is held against the carrier of the hotline, if there is only one.
from_warehouse as (
    select
        'warehouse' as side,
        calls.call_key as compared_key,
        coalesce(partners.carrier_source, told.carrier_source, 'several') as carrier_source,
        null::text as carrier_call_id,
        calls.source,
        calls.call_id,
        calls.caller_token,
        calls.region_code,
        calls.hotline_id,
        null::text as trunk,
        null::text as answered,
        calls.outcome,
        calls.call_seconds,
        null::numeric as billed_seconds,
        matched.call_key is not null as is_matched,
        matched.offset_seconds,
        calls.business_day,
        calls.arrived_at as started_at
    from calls
    inner join told
        on
            calls.business_day = told.business_day
            and calls.hotline_id = told.hotline_id
    left join matched on calls.call_key = matched.call_key
    left join carrier_calls as partners
        on matched.carrier_call_key = partners.carrier_call_key
),

final as (
    select * from from_carriers
    union all
    select * from from_warehouse
)

select * from final
