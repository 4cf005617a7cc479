-- One row per self-service of a call in Amazon Connect: the flow before the queue or the end.
with contacts as (
    select * from {{ ref('base_amazon_connect__contacts') }}
),

steps as (
    select
        *,
        coalesce(enqueued_at, connected_at, disconnected_at) as left_at
    from contacts
    where is_self_service and connected_to_system_at is not null
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by connected_to_system_at, contact_number
        ))::integer as step_number,
        case when self_service = 'bot' then 'bot' else 'ivr' end as channel,
        null::text as node,
        case
            when is_visit or is_connected then 'continued'
            when ivr_outcome is not null then ivr_outcome
            when abandon_stage in ('ivr', 'bot') then 'abandoned'
        end as outcome,
        trim_scale(extract(epoch from left_at - connected_to_system_at)) as step_seconds,
        business_day,
        connected_to_system_at as entered_at,
        left_at
    from steps
)

select * from final
