-- One row per business day, hotline and carrier feed: what the carrier counted, and what we did.
with compared as (
    select * from {{ ref('int_carrier_calls__compared') }}
    where business_day in ({{ claimed_days() }})
),

sums as (
    select
        business_day,
        hotline_id,
        carrier_source,
        count(*) filter (where side = 'carrier') as carrier_calls,
        count(*) filter (where side = 'warehouse') as warehouse_calls,
        count(*) filter (where side = 'carrier' and is_matched) as matched_calls,
        count(*) filter (where side = 'carrier' and not is_matched) as only_carrier_calls,
        count(*) filter (where side = 'warehouse' and not is_matched) as only_warehouse_calls,
        sum(billed_seconds) as billed_seconds,
        percentile_cont(0.5) within group (order by offset_seconds)
        filter (where side = 'carrier') as median_offset_seconds
    from compared
    group by business_day, hotline_id, carrier_source
),

final as (
    select
        business_day,
        hotline_id,
        carrier_source,
        extract(isodow from business_day)::integer as iso_weekday,
        date_trunc('week', business_day)::date as week_start,
        date_trunc('month', business_day)::date as month_start,
        carrier_calls,
        warehouse_calls,
        matched_calls,
        only_carrier_calls,
        only_warehouse_calls,
        billed_seconds,
        trim_scale(median_offset_seconds::numeric) as median_offset_seconds
    from sums
)

select * from final
