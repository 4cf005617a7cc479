-- One row per step of a call of a delimited feed in an IVR menu or with a voice bot.
with steps as (
    select * from {{ source('staging', 'delimited_ivr_steps') }}
),

final as (
    select
        source,
        call_id,
        step_number,
        channel,
        node,
        outcome,
        step_seconds,
        business_day,
        entered_at,
        left_at
    from steps
    where superseded_by is null
)

select * from final
