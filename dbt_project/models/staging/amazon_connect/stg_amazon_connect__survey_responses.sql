-- One row per survey that the flows of Amazon Connect offered in a call.
with contacts as (
    select * from {{ ref('base_amazon_connect__contacts') }}
),

placed as (
    select
        *,
        -- Of the agents who were spoken to, each with the queue that led there, if one did.
        array_agg(case when is_visit then queue_id end) filter (
            where is_connected
        ) over whole_call as queues,
        array_agg(agent_id) filter (where is_connected) over whole_call as agents,
        bool_or(initiation_method like 'CALLBACK%') over whole_call as is_callback
    from contacts
    window whole_call as (
        partition by call_id, source, business_day
        order by contact_number
        rows between unbounded preceding and unbounded following
    )
),

-- Attributes go on with the call: the last contact that has them knows the answer.
surveys as (
    select
        source,
        call_id,
        survey_type,
        (array_agg(survey_score order by contact_number desc) filter (
            where survey_score is not null
        ))[1] as score,
        (array_agg(self_service order by contact_number) filter (
            where self_service is not null
        ))[1] as self_service,
        (array_agg(queues[cardinality(queues)]))[1] as queue_id,
        (array_agg(agents[cardinality(agents)]))[1] as agent_id,
        bool_or(is_callback) as is_callback,
        business_day,
        coalesce(min(survey_offered_at), max(coalesce(disconnected_at, initiated_at)))
            as offered_at,
        max(survey_answered_at) as answered_at
    from placed
    where survey_type is not null
    group by call_id, source, business_day, survey_type
),

final as (
    select
        source,
        call_id || ':' || survey_type as survey_id,
        call_id,
        survey_type,
        case
            when is_callback then 'callback'
            when agent_id is not null then 'human'
            when self_service = 'bot' then 'bot'
            else 'ivr'
        end as channel,
        queue_id,
        agent_id,
        score,
        business_day,
        offered_at,
        answered_at
    from surveys
)

select * from final
