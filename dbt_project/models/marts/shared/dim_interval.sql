-- One row per quarter of an hour of a local day.
-- A day with a clock change has 92 or 100 intervals; its labels repeat or are missing.
with quarters as (
    select generate_series(0, 95) as quarter_of_day
),

final as (
    select
        to_char(time '00:00' + quarter_of_day * interval '15 minutes', 'HH24:MI') as local_interval,
        quarter_of_day,
        quarter_of_day / 4 as local_hour,
        quarter_of_day % 4 * 15 as start_minute,
        case
            when quarter_of_day < 24 then 'night'
            when quarter_of_day < 48 then 'morning'
            when quarter_of_day < 72 then 'afternoon'
            else 'evening'
        end as day_part
    from quarters
)

select * from final
