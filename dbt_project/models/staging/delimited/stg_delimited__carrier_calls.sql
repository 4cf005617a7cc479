-- One row per line of a carrier's bill or trunk records in a delimited feed.
with carrier_calls as (
    select * from {{ source('staging', 'delimited_carrier_calls') }}
),

final as (
    select
        source,
        carrier_call_id,
        caller_token,
        caller_region_code,
        hotline_id,
        trunk,
        answered,
        call_seconds,
        billed_seconds,
        business_day,
        started_at
    from carrier_calls
    where superseded_by is null
)

select * from final
