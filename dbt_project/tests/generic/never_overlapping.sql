{#- Intervals that begin before one of the same `by` has ended, or end before they begin. -#}
{% test never_overlapping(model, by, started_at, ended_at) %}
    select *
    from (
        select
            *,
            lag({{ ended_at }}) over (
                partition by {{ by | join(', ') }}
                order by {{ started_at }}, {{ ended_at }}
            ) as ended_before_at
        from {{ model }}
    ) as intervals
    where {{ ended_at }} <= {{ started_at }} or {{ started_at }} < ended_before_at
{% endtest %}
