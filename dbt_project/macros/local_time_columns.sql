{#-
    Labels of the local quarter of an hour that holds an instant. Intervals are half-open and
    counted from local midnight of the business day, so that a 23 or 25 hour day has 92 or 100.
    Weekday, week and month are those of the business day: a call past midnight stays in its day.
    Of a date `date_trunc` would make an instant in the session's time zone first, for each row.
-#}
{% macro local_time_columns(instant, business_day, time_zone) %}
        date_bin(
            interval '15 minutes', {{ instant }}, {{ business_day }}::timestamp at time zone {{ time_zone }}
        ) as interval_start_at,
        to_char(
            date_bin(
                interval '15 minutes',
                {{ instant }},
                {{ business_day }}::timestamp at time zone {{ time_zone }}
            ) at time zone {{ time_zone }},
            'HH24:MI'
        ) as local_interval,
        extract(hour from {{ instant }} at time zone {{ time_zone }})::integer as local_hour,
        extract(isodow from {{ business_day }})::integer as iso_weekday,
        date_trunc('week', {{ business_day }}::timestamp)::date as week_start,
        date_trunc('month', {{ business_day }}::timestamp)::date as month_start
{%- endmacro %}
