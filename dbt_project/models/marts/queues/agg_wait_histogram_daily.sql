-- One row per day, queue of a source, region of the caller and class of waiting time.
with visits as (
    select * from {{ ref('fct_queue_visits') }}
),

buckets as (
    select * from {{ ref('wait_buckets') }}
),

final as (
    select
        visits.business_day,
        visits.source,
        visits.queue_id,
        visits.region_code,
        buckets.wait_bucket,
        buckets.name as wait_bucket_name,
        buckets.up_to_seconds,
        visits.queue_name,
        visits.region_name,
        visits.iso_weekday,
        visits.week_start,
        visits.month_start,
        sum(visits.queue_visits) as queue_visits,
        sum(visits.calls_offered) as calls_offered,
        sum(visits.calls_answered) as calls_answered,
        sum(visits.calls_abandoned) as calls_abandoned
    from visits
    inner join buckets
        on
            visits.wait_seconds > buckets.above_seconds
            and (buckets.up_to_seconds is null or visits.wait_seconds <= buckets.up_to_seconds)
    group by
        visits.business_day,
        visits.source,
        visits.queue_id,
        visits.region_code,
        buckets.wait_bucket,
        buckets.name,
        buckets.up_to_seconds,
        visits.queue_name,
        visits.region_name,
        visits.iso_weekday,
        visits.week_start,
        visits.month_start
)

select * from final
