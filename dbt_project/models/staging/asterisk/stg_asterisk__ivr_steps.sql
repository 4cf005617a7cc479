-- One row per stay of a call in a menu or with a bot; without channel events one for all of it.
-- Stays and calls are stacked, not joined: filters on days then reach the partitions of both.
with stays as (
    select * from {{ ref('base_asterisk__cel_stays') }}
),

calls as (
    select * from {{ ref('base_asterisk__calls') }}
),

parts as (
    select
        source,
        call_id,
        'stay' as part,
        application_kind,
        application,
        application_data,
        stay_seconds as step_seconds,
        null as call_channel,
        null as call_outcome,
        business_day,
        position,
        entered_at,
        left_at
    from stays
    where application_kind in ('menu', 'bot')
    union all
    select
        source,
        call_id,
        'call' as part,
        ivr_kind as application_kind,
        case when channel in ('ivr', 'bot') then ivr_application end as application,
        case when channel in ('ivr', 'bot') then ivr_data end as application_data,
        ivr_seconds as step_seconds,
        channel as call_channel,
        outcome as call_outcome,
        business_day,
        0 as position,
        coalesce(answered_at, arrived_at) as entered_at,
        coalesce(answered_at, arrived_at) + ivr_seconds * interval '1 second' as left_at
    from calls
),

seen as (
    select
        *,
        bool_or(part = 'stay') over of_the_call as has_stays,
        max(call_channel) over of_the_call as channel,
        max(call_outcome) over of_the_call as outcome
    from parts
    window of_the_call as (partition by call_id, source, business_day)
),

steps as (
    select
        *,
        lead(position) over (
            partition by call_id, source, business_day
            order by position
        ) is null as is_last
    from seen
    where part = 'stay' or (not has_stays and step_seconds > 0)
),

final as (
    select
        source,
        call_id,
        (row_number() over (
            partition by call_id, source, business_day
            order by position
        ))::integer as step_number,
        case
            when application_kind = 'bot' and (part = 'stay' or channel = 'bot') then 'bot'
            else 'ivr'
        end as channel,
        case
            when application_data is null then application
            else application || '(' || application_data || ')'
        end as node,
        case
            when is_last and channel in ('ivr', 'bot') and outcome in ('contained', 'abandoned')
                then outcome
            else 'continued'
        end as outcome,
        step_seconds,
        business_day,
        entered_at,
        left_at
    from steps
)

select * from final
