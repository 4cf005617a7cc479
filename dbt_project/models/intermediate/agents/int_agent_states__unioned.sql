-- One row per interval of an agent in one state, cut at local midnights, of a claimed day.
-- The one place where agent states are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_asterisk__agent_states') }}
    union all
    select * from {{ ref('stg_delimited__agent_states') }}
    union all
    select * from {{ ref('stg_amazon_connect__agent_states') }}
),

final as (
    select
        source,
        agent_id,
        state,
        reason,
        call_id,
        queue_id,
        is_provisional,
        business_day,
        started_at,
        ended_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
