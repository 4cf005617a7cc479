{#-
    Rows whose key is not complete, or is shared with another row. `columns` is one text, with
    commas: dbt renders each string of a list as a template of its own.
-#}
{% test key(model, columns) %}
    select
        {{ columns }},
        count(*) as shared_by
    from {{ model }}
    group by {{ columns }}
    having count(*) > 1 or num_nulls({{ columns }}) > 0
{% endtest %}
