-- One row per call and channel that it asked for help: a call may pass through several.
with calls as (
    select * from {{ ref('fct_calls') }}
),

steps as (
    select * from {{ ref('fct_ivr_steps') }}
),

step_requests as (
    select
        business_day,
        source,
        call_id,
        channel,
        max(self_service_contained) as is_served
    from steps
    group by business_day, source, call_id, channel
),

step_calls as (
    select distinct
        business_day,
        source,
        call_id
    from step_requests
),

requests as (
    select
        business_day,
        source,
        call_id,
        channel,
        is_served
    from step_requests
    union all
    -- Sources that tell no steps still tell the time in self-service, or that the call ended there.
    select
        calls.business_day,
        calls.source,
        calls.call_id,
        case when calls.channel = 'bot' then 'bot' else 'ivr' end as channel,
        calls.calls_contained as is_served
    from calls
    left join step_calls
        on
            calls.business_day = step_calls.business_day
            and calls.source = step_calls.source
            and calls.call_id = step_calls.call_id
    where
        step_calls.call_id is null
        and (calls.ivr_seconds > 0 or calls.channel in ('ivr', 'bot'))
    union all
    select
        business_day,
        source,
        call_id,
        case when channel = 'callback' then 'callback' else 'human' end as channel,
        (agent_connections_count > 0)::integer as is_served
    from calls
    where queue_visits_count > 0 or agent_connections_count > 0 or channel = 'callback'
    union all
    select
        business_day,
        source,
        call_id,
        'voicemail' as channel,
        (outcome = 'voicemail')::integer as is_served
    from calls
    where channel = 'voicemail'
),

final as (
    select
        calls.business_day,
        calls.call_key || ':' || requests.channel as request_key,
        calls.call_key,
        calls.source,
        calls.call_id,
        calls.queue_id,
        calls.queue_name,
        calls.agent_id,
        calls.agent_name,
        calls.team_id,
        calls.team_name,
        calls.region_code,
        calls.region_name,
        requests.channel,
        calls.business_type,
        calls.hotline_id,
        calls.arrived_at,
        calls.interval_start_at,
        calls.local_interval,
        calls.local_hour,
        calls.iso_weekday,
        calls.week_start,
        calls.month_start,
        1 as channel_requests,
        requests.is_served as channel_requests_served
    from requests
    inner join calls
        on
            requests.business_day = calls.business_day
            and requests.source = calls.source
            and requests.call_id = calls.call_id
    -- A phantom record is no call and asked for nothing.
    where calls.calls = 1
)

select * from final
