-- One row per stretch in which an agent's plan says one thing: none overlaps another.
with schedules as (
    select * from {{ ref('int_agent_schedules__unioned') }}
),

borders as (
    select
        source,
        business_day,
        agent_id,
        starts_at as border_at
    from schedules
    union distinct
    select
        source,
        business_day,
        agent_id,
        ends_at as border_at
    from schedules
),

slices as (
    select
        source,
        business_day,
        agent_id,
        border_at as starts_at,
        lead(border_at) over (
            partition by agent_id, source, business_day
            order by border_at
        ) as ends_at
    from borders
),

-- Breaks are often planned on top of the work, which goes on after them: what begins later counts,
-- of two that begin together the shorter one.
ranked as (
    select
        slices.source,
        slices.business_day,
        slices.agent_id,
        schedules.activity,
        schedules.is_paid,
        schedules.shift_date,
        slices.starts_at,
        slices.ends_at,
        row_number() over (
            partition by slices.agent_id, slices.source, slices.business_day, slices.starts_at
            order by
                schedules.began_at desc,
                schedules.ends_at asc,
                schedules.activity asc,
                schedules.is_paid asc,
                schedules.shift_date asc
        ) as choice
    from slices
    inner join schedules
        on
            slices.source = schedules.source
            and slices.business_day = schedules.business_day
            and slices.agent_id = schedules.agent_id
            and slices.starts_at >= schedules.starts_at
            and slices.ends_at <= schedules.ends_at
),

final as (
    select
        source,
        agent_id,
        activity,
        is_paid,
        shift_date,
        business_day,
        starts_at,
        ends_at
    from ranked
    where choice = 1
)

select * from final
