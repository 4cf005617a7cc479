-- One row per call and channel that it asked for help: a call may pass through several.
-- Calls are read four times: a copy of all their columns would cost more, and has no statistics.
with calls as not materialized (
    select * from {{ ref('fct_calls') }}
),

steps as (
    select * from {{ ref('fct_ivr_steps') }}
),

costs as (
    select * from {{ ref('channel_costs') }}
),

step_requests as (
    select
        business_day,
        source,
        call_id,
        channel,
        max(self_service_contained) as is_served,
        -- A step of unknown length leaves the whole unknown.
        case when count(*) = count(step_seconds) then sum(step_seconds) end as channel_seconds
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
        is_served,
        channel_seconds
    from step_requests
    union all
    -- Sources that tell no steps still tell the time in self-service, or that the call ended there.
    select
        calls.business_day,
        calls.source,
        calls.call_id,
        case when calls.channel = 'bot' then 'bot' else 'ivr' end as channel,
        calls.calls_contained as is_served,
        calls.ivr_seconds as channel_seconds
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
        (agent_connections_count > 0)::integer as is_served,
        case
            when agent_connections_count = 0 then 0
            else talk_seconds + coalesce(hold_seconds, 0) + coalesce(acw_seconds, 0)
        end as channel_seconds
    from calls
    where queue_visits_count > 0 or agent_connections_count > 0 or channel = 'callback'
    union all
    select
        business_day,
        source,
        call_id,
        'voicemail' as channel,
        (outcome = 'voicemail')::integer as is_served,
        null as channel_seconds
    from calls
    where channel = 'voicemail'
),

asked as (
    select distinct
        source,
        business_day,
        channel
    from requests
),

-- Looked up once per day and channel, not for each request.
prices as (
    select distinct on (asked.source, asked.business_day, asked.channel)
        asked.source,
        asked.business_day,
        asked.channel,
        costs.cost_per_request,
        costs.cost_per_minute
    from asked
    inner join costs
        on
            costs.source in (asked.source, '*')
            and asked.channel = costs.channel
            and asked.business_day >= costs.valid_from
            and (costs.valid_to is null or asked.business_day < costs.valid_to)
    order by
        asked.source asc,
        asked.business_day asc,
        asked.channel asc,
        costs.source = '*' asc,
        costs.valid_from desc
),

priced as (
    select
        requests.*,
        prices.cost_per_request,
        prices.cost_per_minute
    from requests
    left join prices
        on
            requests.source = prices.source
            and requests.business_day = prices.business_day
            and requests.channel = prices.channel
),

requests_of_calls as (
    select
        calls.business_day,
        calls.call_key || ':' || priced.channel as request_key,
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
        priced.channel,
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
        priced.is_served as channel_requests_served,
        priced.channel_seconds,
        -- Without a price the cost is unknown; so it is where minutes cost and are not known.
        case
            when coalesce(priced.cost_per_minute, 0) = 0 then priced.cost_per_request
            else
                trim_scale(
                    coalesce(priced.cost_per_request, 0)
                    + priced.cost_per_minute * priced.channel_seconds / 60
                )
        end as request_cost
    from priced
    inner join calls
        on
            priced.business_day = calls.business_day
            and priced.source = calls.source
            and priced.call_id = calls.call_id
    -- A phantom record is no call and asked for nothing.
    where calls.calls = 1
),

final as (
    select
        *,
        (request_cost is not null)::integer as is_costed,
        case when request_cost is not null then call_key end as costed_call_key
    from requests_of_calls
)

select * from final
