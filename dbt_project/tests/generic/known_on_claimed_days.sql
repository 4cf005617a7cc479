{#- Codes that nobody has ruled on yet, on the claimed days: all days would be read otherwise. -#}
{% test known_on_claimed_days(model, column_name, values) %}
    select
        source,
        business_day,
        {{ column_name }},
        count(*) as records
    from {{ model }}
    where
        business_day in ({{ claimed_days() }})
        and {{ column_name }} not in (
            {%- for value in values %}'{{ value }}'{{ ', ' if not loop.last }}{% endfor -%}
        )
    group by source, business_day, {{ column_name }}
{% endtest %}
