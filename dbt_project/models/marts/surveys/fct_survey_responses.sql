-- One row per survey that was offered to a customer, answered or not.
with surveys as (
    select * from {{ ref('int_survey_responses__unioned') }}
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

-- Left joins throughout: a dimension that is missing must never cost a survey.
described as (
    select
        surveys.source,
        surveys.survey_id,
        surveys.call_id,
        surveys.survey_type,
        surveys.score,
        surveys.business_day,
        surveys.offered_at,
        surveys.answered_at,
        coalesce(surveys.queue_id, 'none') as queue_id,
        coalesce(surveys.agent_id, 'none') as agent_id,
        coalesce(surveys.channel, calls.channel, 'unknown') as channel,
        coalesce(calls.business_type, 'unknown') as business_type,
        coalesce(calls.hotline_id, 'unknown') as hotline_id,
        coalesce(agents.agent_name, surveys.agent_id, 'No agent') as agent_name,
        coalesce(agents.team_id, case when surveys.agent_id is null then 'none' else 'unknown' end)
            as team_id,
        coalesce(
            agents.team_name,
            case when surveys.agent_id is null then 'No team' else 'Unknown team' end
        ) as team_name,
        -- The customer's voice belongs to the customer's region, known or not; the agent's stands
        -- in only where the call itself is not known.
        coalesce(
            case
                when calls.call_id is null then agents.region_code
                else calls.caller_region_code
            end,
            'unknown'
        ) as region_code,
        coalesce(sources.time_zone, 'UTC') as time_zone
    from surveys
    left join calls
        on
            surveys.source = calls.source
            and surveys.business_day = calls.business_day
            and surveys.call_id = calls.call_id
    left join agents
        on
            surveys.source = agents.source
            and surveys.agent_id = agents.agent_id
            and surveys.business_day >= agents.valid_from
            and (agents.valid_to is null or surveys.business_day < agents.valid_to)
    left join sources on surveys.source = sources.source
),

final as (
    select
        described.business_day,
        described.source || ':' || described.survey_id as survey_key,
        described.source || ':' || described.call_id as call_key,
        described.source,
        described.survey_id,
        described.call_id,
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
        described.survey_type,
        described.offered_at,
        described.answered_at,
        {{ local_time_columns(
            'described.offered_at', 'described.business_day', 'described.time_zone'
        ) }},
        described.score,
        1 as survey_offers,
        (described.score is not null)::integer as survey_responses,
        coalesce(described.survey_type = 'csat' and described.score >= 1, false)::integer
            as csat_responses,
        coalesce(described.survey_type = 'csat' and described.score >= 4, false)::integer
            as csat_satisfied,
        coalesce(described.survey_type = 'nps' and described.score >= 0, false)::integer
            as nps_responses,
        coalesce(described.survey_type = 'nps' and described.score >= 9, false)::integer
            as nps_promoters,
        coalesce(described.survey_type = 'nps' and described.score <= 6, false)::integer
            as nps_detractors,
        coalesce(described.survey_type = 'ces' and described.score >= 1, false)::integer
            as ces_responses,
        case when described.survey_type = 'ces' then described.score end as ces_scores
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
