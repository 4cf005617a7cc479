-- One row per survey that was offered to a customer, answered or not, of a claimed day.
-- The one place where survey responses are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_delimited__survey_responses') }}
    union all
    select * from {{ ref('stg_amazon_connect__survey_responses') }}
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
        score,
        business_day,
        offered_at,
        answered_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
