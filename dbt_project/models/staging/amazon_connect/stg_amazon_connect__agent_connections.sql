-- One row per connection of a call with an agent in Amazon Connect.
with contacts as (
    select * from {{ ref('base_amazon_connect__contacts') }}
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by connected_at, contact_number
        ))::integer as connection_number,
        queue_id,
        agent_id,
        transfer_type,
        null::numeric as ring_seconds,
        talk_seconds,
        hold_seconds,
        acw_seconds,
        business_day,
        connected_at,
        released_at as ended_at
    from contacts
    where is_connected
)

select * from final
