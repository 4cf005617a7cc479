-- One row per ring of a call to an agent, answered or not.
with offers as (
    select * from {{ ref('int_agent_offers__unioned') }}
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

sources as (
    select * from {{ ref('dim_source') }}
),

-- Left joins throughout: a dimension that is missing must never cost an offer.
described as (
    select
        offers.source,
        offers.call_id,
        offers.offer_number,
        offers.outcome,
        offers.ring_seconds,
        offers.business_day,
        offers.offered_at,
        offers.ended_at,
        coalesce(offers.agent_id, 'unknown') as agent_id,
        coalesce(offers.queue_id, 'none') as queue_id,
        coalesce(calls.channel, 'unknown') as channel,
        coalesce(calls.business_type, 'unknown') as business_type,
        coalesce(calls.hotline_id, 'unknown') as hotline_id,
        coalesce(agents.agent_name, offers.agent_id, 'Unknown agent') as agent_name,
        coalesce(agents.team_id, 'unknown') as team_id,
        coalesce(agents.team_name, 'Unknown team') as team_name,
        -- An agent's work belongs to the agent's region; without one, to the caller's.
        coalesce(nullif(agents.region_code, 'unknown'), calls.caller_region_code, 'unknown')
            as region_code,
        coalesce(sources.time_zone, 'UTC') as time_zone
    from offers
    left join calls
        on
            offers.source = calls.source
            and offers.business_day = calls.business_day
            and offers.call_id = calls.call_id
    left join agents
        on
            offers.source = agents.source
            and coalesce(offers.agent_id, 'unknown') = agents.agent_id
            and offers.business_day >= agents.valid_from
            and (agents.valid_to is null or offers.business_day < agents.valid_to)
    left join sources on offers.source = sources.source
),

final as (
    select
        described.business_day,
        described.source || ':' || described.call_id || ':' || described.offer_number as offer_key,
        described.source || ':' || described.call_id as call_key,
        described.source,
        described.call_id,
        described.offer_number,
        described.queue_id,
        coalesce(queues.queue_name, described.queue_id) as queue_name,
        described.agent_id,
        described.agent_name,
        described.team_id,
        described.team_name,
        described.region_code,
        coalesce(regions.region_name, described.region_code) as region_name,
        described.channel,
        described.business_type,
        described.hotline_id,
        described.outcome,
        described.offered_at,
        described.ended_at,
        {{ local_time_columns(
            'described.offered_at', 'described.business_day', 'described.time_zone'
        ) }},
        1 as offers,
        (described.outcome = 'answered')::integer as offers_answered,
        (described.outcome = 'no_answer')::integer as offers_unanswered,
        (described.outcome = 'rejected')::integer as offers_rejected,
        (described.outcome = 'cancelled')::integer as offers_cancelled,
        (described.outcome = 'failed')::integer as offers_failed,
        described.ring_seconds
    from described
    left join queues
        on
            described.source = queues.source
            and described.queue_id = queues.queue_id
            and described.business_day >= queues.valid_from
            and (queues.valid_to is null or described.business_day < queues.valid_to)
    left join regions on described.region_code = regions.region_code
)

select * from final
