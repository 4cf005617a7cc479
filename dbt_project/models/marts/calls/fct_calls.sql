-- One row per customer call, end to end; phantom records are rows that count as no call.
with calls as (
    select * from {{ ref('int_calls__unioned') }}
),

visits as (
    select * from {{ ref('int_queue_visits__unioned') }}
),

connections as (
    select * from {{ ref('int_agent_connections__unioned') }}
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

rules as (
    select * from {{ ref('int_anomaly_rules__in_force') }}
),

-- Of the same business day only, so that a day stays a function of its own calls. Windows over all
-- calls instead of a join with those of known callers, which the planner merges by day alone.
contacts as (
    select
        *,
        case
            when is_contact
                then lag(arrived_at) over (
                    partition by caller_token, source, business_day, is_contact
                    order by arrived_at, call_id
                )
        end as previous_arrived_at
    from (
        select
            *,
            caller_token is not null
            and outcome <> 'phantom'
            and coalesce(channel <> 'callback', true) as is_contact
        from calls
    ) as told
),

visits_of_call as (
    select
        source,
        business_day,
        call_id,
        count(*)::integer as queue_visits,
        max(queue_id) filter (where visit_number = 1) as first_queue_id,
        sum(wait_seconds) as wait_seconds,
        sum(ring_seconds) as ring_seconds
    from visits
    group by call_id, source, business_day
),

connections_of_call as (
    select
        source,
        business_day,
        call_id,
        count(*)::integer as agent_connections,
        coalesce(max(agent_id) filter (where connection_number = 1), 'unknown') as first_agent_id,
        min(connected_at) as answered_at,
        count(transfer_type)::integer as transfers,
        sum(talk_seconds) as talk_seconds,
        sum(hold_seconds) as hold_seconds,
        sum(acw_seconds) as acw_seconds
    from connections
    group by call_id, source, business_day
),

-- Left joins throughout: a dimension that is missing must never cost a call.
described as (
    select
        calls.source,
        calls.call_id,
        calls.caller_token,
        calls.caller_carrier,
        calls.priority,
        calls.hangup_party,
        calls.outcome,
        calls.abandon_stage,
        calls.ivr_seconds,
        calls.data_issues,
        calls.business_day,
        calls.arrived_at,
        calls.ended_at,
        visits_of_call.wait_seconds,
        visits_of_call.ring_seconds,
        connections_of_call.answered_at,
        connections_of_call.talk_seconds,
        connections_of_call.hold_seconds,
        connections_of_call.acw_seconds,
        coalesce(visits_of_call.first_queue_id, 'none') as queue_id,
        coalesce(connections_of_call.first_agent_id, 'none') as agent_id,
        coalesce(calls.caller_region_code, 'unknown') as region_code,
        coalesce(calls.channel, 'unknown') as channel,
        coalesce(calls.business_type, 'unknown') as business_type,
        coalesce(calls.hotline_id, 'unknown') as hotline_id,
        coalesce(visits_of_call.queue_visits, 0) as queue_visits_count,
        coalesce(connections_of_call.agent_connections, 0) as agent_connections_count,
        coalesce(connections_of_call.transfers, 0) as transfers_count,
        coalesce(sources.time_zone, 'UTC') as time_zone,
        coalesce(calls.ivr_seconds, 0)
        + coalesce(visits_of_call.wait_seconds, 0)
        + coalesce(connections_of_call.talk_seconds, 0)
        + coalesce(connections_of_call.hold_seconds, 0) as component_seconds,
        trim_scale(extract(epoch from calls.ended_at - calls.arrived_at)) as call_seconds,
        trim_scale(extract(epoch from calls.arrived_at - calls.previous_arrived_at))
            as seconds_since_previous_call
    from contacts as calls
    left join visits_of_call
        on
            calls.source = visits_of_call.source
            and calls.business_day = visits_of_call.business_day
            and calls.call_id = visits_of_call.call_id
    left join connections_of_call
        on
            calls.source = connections_of_call.source
            and calls.business_day = connections_of_call.business_day
            and calls.call_id = connections_of_call.call_id
    left join sources on calls.source = sources.source
),

compared as (
    select
        described.source,
        described.business_day,
        described.call_id,
        rules.rule,
        rules.comparison,
        rules.threshold,
        {{ anomaly_component('described', 'rules.component') }} as measured
    from described
    inner join rules
        on
            described.source = rules.source
            and described.business_day = rules.business_day
    where described.outcome <> 'phantom'
),

abnormal as (
    select
        source,
        business_day,
        call_id,
        string_agg(rule, ', ' order by rule) as anomalies
    from compared
    where
        (comparison = 'below' and measured < threshold)
        or (comparison = 'above' and measured > threshold)
        or (comparison = 'at_least' and measured >= threshold)
        or (comparison = 'at_most' and measured <= threshold)
    group by call_id, source, business_day
),

final as (
    select
        described.business_day,
        described.source || ':' || described.call_id as call_key,
        described.source,
        described.call_id,
        described.caller_token,
        described.caller_carrier,
        described.queue_id,
        coalesce(queues.queue_name, described.queue_id) as queue_name,
        described.agent_id,
        coalesce(agents.agent_name, described.agent_id) as agent_name,
        coalesce(agents.team_id, 'unknown') as team_id,
        coalesce(agents.team_name, 'Unknown team') as team_name,
        described.region_code,
        coalesce(regions.region_name, described.region_code) as region_name,
        described.channel,
        described.business_type,
        coalesce(business_types.product_line, 'unknown') as product_line,
        described.hotline_id,
        described.priority,
        described.hangup_party,
        described.outcome,
        described.abandon_stage,
        -- What happens to a caller one after the other takes no longer than the call. Each of three
        -- boundaries may be off by 2 s (METRICS.md, ruling 1) before the record contradicts itself.
        case
            when described.component_seconds > described.call_seconds + 6
                then array_append(described.data_issues, 'components_exceed_call')
            else described.data_issues
        end as data_issues,
        coalesce(abnormal.anomalies, 'none') as anomalies,
        abnormal.call_id is not null as is_abnormal,
        described.arrived_at,
        described.answered_at,
        described.ended_at,
        {{ local_time_columns(
            'described.arrived_at', 'described.business_day', 'described.time_zone'
        ) }},
        described.queue_visits_count,
        described.agent_connections_count,
        described.transfers_count,
        (described.outcome <> 'phantom')::integer as calls,
        (described.outcome = 'phantom')::integer as phantom_calls,
        (described.outcome = 'answered')::integer as calls_connected,
        (described.outcome = 'abandoned')::integer as calls_abandoned_before_agent,
        coalesce(
            described.outcome = 'abandoned' and described.abandon_stage in ('ivr', 'bot'), false
        )::integer as abandoned_in_ivr,
        (described.outcome = 'contained')::integer as calls_contained,
        (described.outcome = 'closed')::integer as calls_after_hours,
        (described.transfers_count > 0 and described.outcome <> 'phantom')::integer
            as calls_transferred,
        (abnormal.call_id is not null)::integer as abnormal_calls,
        described.ivr_seconds,
        described.wait_seconds,
        described.ring_seconds,
        described.talk_seconds,
        described.hold_seconds,
        described.acw_seconds,
        described.call_seconds,
        described.seconds_since_previous_call
    from described
    left join abnormal
        on
            described.source = abnormal.source
            and described.business_day = abnormal.business_day
            and described.call_id = abnormal.call_id
    left join queues
        on
            described.source = queues.source
            and described.queue_id = queues.queue_id
            and described.business_day >= queues.valid_from
            and (queues.valid_to is null or described.business_day < queues.valid_to)
    left join agents
        on
            described.source = agents.source
            and described.agent_id = agents.agent_id
            and described.business_day >= agents.valid_from
            and (agents.valid_to is null or described.business_day < agents.valid_to)
    left join regions on described.region_code = regions.region_code
    left join business_types on described.business_type = business_types.business_type
)

select * from final
