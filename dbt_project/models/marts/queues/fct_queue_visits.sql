-- One row per visit of a call to a queue.
with visits as (
    select * from {{ ref('int_queue_visits__unioned') }}
),

calls as (
    select * from {{ ref('int_calls__unioned') }}
),

queues as (
    select * from {{ ref('int_queues__versions') }}
),

agents as (
    select * from {{ ref('int_agents__versions') }}
),

regions as (
    select * from {{ ref('dim_region') }}
),

business_types as (
    select * from {{ ref('dim_business_type') }}
),

sources as (
    select * from {{ ref('dim_source') }}
),

-- Left joins throughout: a dimension that is missing must never cost a visit.
described as (
    select
        visits.source,
        visits.call_id,
        visits.visit_number,
        visits.queue_id,
        visits.outcome,
        visits.abandon_stage,
        visits.wait_seconds,
        visits.ring_seconds,
        visits.business_day,
        visits.entered_at,
        visits.left_at,
        calls.hotline_id,
        calls.business_type,
        queues.queue_name,
        queues.target_seconds,
        queues.short_abandon_seconds,
        coalesce(visits.agent_id, case when visits.outcome = 'answered' then 'unknown' end, 'none')
            as agent_id,
        coalesce(calls.channel, 'unknown') as channel,
        coalesce(calls.caller_region_code, 'unknown') as region_code,
        coalesce(sources.time_zone, 'UTC') as time_zone,
        visits.outcome <> 'closed' as is_offered,
        visits.outcome = 'answered' as is_answered,
        -- Stage `voicemail` gave up after the queue; a hang-up without a stage happened in it.
        visits.outcome = 'abandoned'
        and coalesce(visits.abandon_stage, 'queue') in ('queue', 'ring') as is_abandoned
    from visits
    left join calls
        on
            visits.source = calls.source
            and visits.business_day = calls.business_day
            and visits.call_id = calls.call_id
    left join queues
        on
            visits.source = queues.source
            and visits.queue_id = queues.queue_id
            and visits.business_day >= queues.valid_from
            and (queues.valid_to is null or visits.business_day < queues.valid_to)
    left join sources on visits.source = sources.source
),

final as (
    select
        described.business_day,
        described.source || ':' || described.call_id || ':' || described.visit_number as visit_key,
        described.source || ':' || described.call_id as call_key,
        described.source,
        described.call_id,
        described.visit_number,
        described.queue_id,
        coalesce(described.queue_name, described.queue_id) as queue_name,
        described.agent_id,
        coalesce(agents.agent_name, described.agent_id) as agent_name,
        coalesce(agents.team_id, 'unknown') as team_id,
        coalesce(agents.team_name, 'Unknown team') as team_name,
        described.region_code,
        coalesce(regions.region_name, described.region_code) as region_name,
        described.channel,
        coalesce(described.business_type, 'unknown') as business_type,
        coalesce(business_types.product_line, 'unknown') as product_line,
        coalesce(described.hotline_id, 'unknown') as hotline_id,
        described.outcome,
        described.abandon_stage,
        described.entered_at,
        described.left_at,
        {{ local_time_columns(
            'described.entered_at', 'described.business_day', 'described.time_zone'
        ) }},
        described.target_seconds,
        described.short_abandon_seconds,
        described.wait_seconds,
        described.ring_seconds,
        1 as queue_visits,
        described.is_offered::integer as calls_offered,
        described.is_answered::integer as calls_answered,
        described.is_abandoned::integer as calls_abandoned,
        coalesce(
            described.is_answered and described.wait_seconds <= described.target_seconds, false
        )::integer as answered_within_target,
        coalesce(
            described.is_abandoned and described.wait_seconds <= described.target_seconds, false
        )::integer as abandoned_within_target,
        coalesce(described.is_answered and described.wait_seconds <= 15, false)::integer
            as answered_within_15s,
        coalesce(described.is_answered and described.wait_seconds <= 20, false)::integer
            as answered_within_20s,
        coalesce(described.is_answered and described.wait_seconds <= 30, false)::integer
            as answered_within_30s,
        coalesce(
            described.is_abandoned and described.wait_seconds <= described.short_abandon_seconds,
            false
        )::integer as short_abandons,
        -- A call-back's wait is the caller's free time, so it is no speed of answer.
        coalesce(
            described.is_answered
            and described.channel <> 'callback'
            and described.wait_seconds is not null,
            false
        )::integer as answered_waits,
        case
            when described.is_answered and described.channel <> 'callback'
                then described.wait_seconds
        end as answered_wait_seconds,
        (described.is_abandoned and described.wait_seconds is not null)::integer as abandoned_waits,
        case when described.is_abandoned then described.wait_seconds end as abandoned_wait_seconds,
        case when described.is_offered then described.wait_seconds end as longest_wait_seconds
    from described
    left join agents
        on
            described.source = agents.source
            and described.agent_id = agents.agent_id
            and described.business_day >= agents.valid_from
            and (agents.valid_to is null or described.business_day < agents.valid_to)
    left join regions on described.region_code = regions.region_code
    left join business_types
        on coalesce(described.business_type, 'unknown') = business_types.business_type
)

select * from final
