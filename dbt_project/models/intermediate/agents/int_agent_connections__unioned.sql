-- One row per connection of a call with an agent, of a claimed day.
-- The one place where connections are filtered to the claimed days.
with unioned as (
    select * from {{ ref('stg_delimited__agent_connections') }}
    union all
    select * from {{ ref('stg_asterisk__agent_connections') }}
    union all
    select * from {{ ref('stg_amazon_connect__agent_connections') }}
),

final as (
    select
        source,
        call_id,
        connection_number,
        queue_id,
        agent_id,
        transfer_type,
        ring_seconds,
        talk_seconds,
        hold_seconds,
        acw_seconds,
        business_day,
        connected_at,
        ended_at
    from unioned
    where business_day in ({{ claimed_days() }})
)

select * from final
