{#- Rows whose key is not complete, or is shared with another row. -#}
{% test key(model, columns) %}
    select
        {{ columns | join(', ') }},
        count(*) as shared_by
    from {{ model }}
    group by {{ columns | join(', ') }}
    having count(*) > 1 or num_nulls({{ columns | join(', ') }}) > 0
{% endtest %}
