-- One row per calendar day from 1998 to 2040.
with holidays as (
    select * from {{ ref('holidays') }}
),

days as (
    select generate_series(date '1998-01-01', date '2040-12-31', interval '1 day')::date as date_day
),

final as (
    select
        days.date_day,
        extract(year from days.date_day)::integer as calendar_year,
        extract(quarter from days.date_day)::integer as quarter_of_year,
        extract(month from days.date_day)::integer as month_of_year,
        extract(day from days.date_day)::integer as day_of_month,
        extract(isodow from days.date_day)::integer as iso_weekday,
        to_char(days.date_day, 'FMDay') as weekday_name,
        extract(week from days.date_day)::integer as iso_week,
        date_trunc('week', days.date_day)::date as week_start,
        date_trunc('month', days.date_day)::date as month_start,
        holidays.name_en as holiday_name,
        holidays.name_zh as holiday_name_zh,
        coalesce(holidays.is_working_day, extract(isodow from days.date_day) < 6) as is_working_day
    from days
    left join holidays
        on days.date_day = holidays.holiday_date and holidays.calendar = '{{ var("calendar") }}'
)

select * from final
