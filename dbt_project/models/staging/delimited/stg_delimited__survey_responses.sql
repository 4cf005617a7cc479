-- One row per survey of a delimited feed that was offered to a customer, answered or not.
with surveys as (
    select * from {{ source('staging', 'delimited_surveys') }}
),

final as (
    select
        source,
        survey_id,
        call_id,
        survey_type,
        channel,
        queue_id,
        agent_id,
        score::numeric as score,
        business_day,
        offered_at,
        answered_at
    from surveys
    where superseded_by is null
)

select * from final
