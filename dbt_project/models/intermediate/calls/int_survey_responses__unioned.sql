-- One row per survey that was offered to a customer, answered or not, of a claimed day.
-- The one place where survey responses are filtered to the claimed days.
-- Vendors that know nothing of the kind are absent; `typed` keeps the relation then.
with typed as (
    select
        null::text as source,
        null::text as survey_id,
        null::text as call_id,
        null::text as survey_type,
        null::text as channel,
        null::text as queue_id,
        null::text as agent_id,
        null::numeric as score,
        null::date as business_day,
        null::timestamptz as offered_at,
        null::timestamptz as answered_at
    where false
),

unioned as (
    select * from typed
    union all
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
