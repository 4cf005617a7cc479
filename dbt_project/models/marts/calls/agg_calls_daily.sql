-- One row per day, source, queue, channel, region of the caller, business type and hotline.
-- Calls count in the first queue they reached (`none` without one), visits in their own queue.
with calls as (
    select * from {{ ref('fct_calls') }}
),

visits as (
    select * from {{ ref('fct_queue_visits') }}
),

call_sums as (
    select
        business_day,
        source,
        queue_id,
        channel,
        region_code,
        business_type,
        hotline_id,
        max(product_line) as product_line,
        max(queue_name) as queue_name,
        max(region_name) as region_name,
        sum(calls) as calls,
        sum(phantom_calls) as phantom_calls,
        sum(calls_connected) as calls_connected,
        sum(calls_abandoned_before_agent) as calls_abandoned_before_agent,
        sum(abandoned_in_ivr) as abandoned_in_ivr,
        sum(calls_contained) as calls_contained,
        sum(calls_after_hours) as calls_after_hours,
        sum(calls_transferred) as calls_transferred
    from calls
    group by business_day, source, queue_id, channel, region_code, business_type, hotline_id
),

visit_sums as (
    select
        business_day,
        source,
        queue_id,
        channel,
        region_code,
        business_type,
        hotline_id,
        max(product_line) as product_line,
        max(queue_name) as queue_name,
        max(region_name) as region_name,
        sum(queue_visits) as queue_visits,
        sum(calls_offered) as calls_offered,
        sum(calls_answered) as calls_answered,
        sum(calls_abandoned) as calls_abandoned,
        sum(answered_within_target) as answered_within_target,
        sum(abandoned_within_target) as abandoned_within_target,
        sum(answered_within_15s) as answered_within_15s,
        sum(answered_within_20s) as answered_within_20s,
        sum(answered_within_30s) as answered_within_30s,
        sum(short_abandons) as short_abandons,
        sum(answered_waits) as answered_waits,
        sum(answered_wait_seconds) as answered_wait_seconds,
        sum(abandoned_waits) as abandoned_waits,
        sum(abandoned_wait_seconds) as abandoned_wait_seconds,
        max(longest_wait_seconds) as longest_wait_seconds
    from visits
    group by business_day, source, queue_id, channel, region_code, business_type, hotline_id
),

final as (
    select
        business_day,
        source,
        queue_id,
        channel,
        region_code,
        business_type,
        hotline_id,
        coalesce(call_sums.product_line, visit_sums.product_line) as product_line,
        coalesce(call_sums.queue_name, visit_sums.queue_name) as queue_name,
        coalesce(call_sums.region_name, visit_sums.region_name) as region_name,
        extract(isodow from business_day)::integer as iso_weekday,
        date_trunc('week', business_day)::date as week_start,
        date_trunc('month', business_day)::date as month_start,
        coalesce(call_sums.calls, 0) as calls,
        coalesce(call_sums.phantom_calls, 0) as phantom_calls,
        coalesce(call_sums.calls_connected, 0) as calls_connected,
        coalesce(call_sums.calls_abandoned_before_agent, 0) as calls_abandoned_before_agent,
        coalesce(call_sums.abandoned_in_ivr, 0) as abandoned_in_ivr,
        coalesce(call_sums.calls_contained, 0) as calls_contained,
        coalesce(call_sums.calls_after_hours, 0) as calls_after_hours,
        coalesce(call_sums.calls_transferred, 0) as calls_transferred,
        coalesce(visit_sums.queue_visits, 0) as queue_visits,
        coalesce(visit_sums.calls_offered, 0) as calls_offered,
        coalesce(visit_sums.calls_answered, 0) as calls_answered,
        coalesce(visit_sums.calls_abandoned, 0) as calls_abandoned,
        coalesce(visit_sums.answered_within_target, 0) as answered_within_target,
        coalesce(visit_sums.abandoned_within_target, 0) as abandoned_within_target,
        coalesce(visit_sums.answered_within_15s, 0) as answered_within_15s,
        coalesce(visit_sums.answered_within_20s, 0) as answered_within_20s,
        coalesce(visit_sums.answered_within_30s, 0) as answered_within_30s,
        coalesce(visit_sums.short_abandons, 0) as short_abandons,
        coalesce(visit_sums.answered_waits, 0) as answered_waits,
        coalesce(visit_sums.answered_wait_seconds, 0) as answered_wait_seconds,
        coalesce(visit_sums.abandoned_waits, 0) as abandoned_waits,
        coalesce(visit_sums.abandoned_wait_seconds, 0) as abandoned_wait_seconds,
        visit_sums.longest_wait_seconds
    from call_sums
    -- A full join's keys come from either side: only `using` merges them.
    full join visit_sums
        using (  -- noqa: ST07
            business_day, source, queue_id, channel, region_code, business_type, hotline_id
        )
)

select * from final
