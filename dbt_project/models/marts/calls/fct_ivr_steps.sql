-- One row per step of a call in an IVR menu or with a voice bot.
with steps as (
    select * from {{ ref('int_ivr_steps__unioned') }}
),

calls as (
    select * from {{ ref('int_calls__unioned') }}
),

regions as (
    select * from {{ ref('dim_region') }}
),

sources as (
    select * from {{ ref('dim_source') }}
),

-- Left joins throughout: a dimension that is missing must never cost a step.
described as (
    select
        steps.source,
        steps.call_id,
        steps.step_number,
        steps.channel,
        steps.node,
        steps.outcome,
        steps.step_seconds,
        steps.business_day,
        steps.entered_at,
        steps.left_at,
        coalesce(calls.caller_region_code, 'unknown') as region_code,
        coalesce(calls.business_type, 'unknown') as business_type,
        coalesce(calls.hotline_id, 'unknown') as hotline_id,
        coalesce(sources.time_zone, 'UTC') as time_zone,
        row_number() over (
            partition by steps.call_id, steps.source, steps.business_day, steps.channel
            order by steps.step_number
        ) as place
    from steps
    left join calls
        on
            steps.source = calls.source
            and steps.business_day = calls.business_day
            and steps.call_id = calls.call_id
    left join sources on steps.source = sources.source
),

final as (
    select
        described.business_day,
        described.source || ':' || described.call_id || ':' || described.step_number as step_key,
        described.source || ':' || described.call_id as call_key,
        described.source,
        described.call_id,
        described.step_number,
        described.region_code,
        coalesce(regions.region_name, described.region_code) as region_name,
        described.channel,
        described.business_type,
        described.hotline_id,
        described.node,
        described.outcome,
        described.entered_at,
        described.left_at,
        {{ local_time_columns(
            'described.entered_at', 'described.business_day', 'described.time_zone'
        ) }},
        1 as ivr_steps,
        (described.place = 1)::integer as self_service_requests,
        coalesce(described.outcome = 'contained', false)::integer as self_service_contained,
        coalesce(described.outcome = 'abandoned', false)::integer as self_service_abandoned,
        described.step_seconds
    from described
    left join regions on described.region_code = regions.region_code
)

select * from final
