-- One row per stay of a customer's channel in a dialplan application that CEL tracks.
with events as (
    select * from {{ ref('base_asterisk__cel_events') }}
),

-- An application's end is not always written: the next one, or the hang-up, ends it as well.
bounds as (
    select
        *,
        lead(event_at) over (
            partition by call_id, source, business_day
            order by position
        ) as left_at
    from events
    where
        is_customers
        and is_caller
        and event in ('APP_START', 'APP_END', 'HANGUP', 'CHAN_END')
),

final as (
    select
        source,
        call_id,
        application,
        application_data,
        application_kind,
        position,
        trim_scale(round(extract(epoch from left_at - event_at), 3)) as stay_seconds,
        business_day,
        event_at as entered_at,
        left_at
    from bounds
    where event = 'APP_START'
)

select * from final
