{#-
    Rows whose key is not complete, or is shared with another row. `columns` is one text, with
    commas: dbt renders each string of a list as a template of its own.
-#}
{% test key(model, columns) %}
    select
        {{ columns }},
        count(*) as shared_by
    from {{ model }}
    -- As many hashes as rows: no key is there twice. Where there are fewer (two keys may have one
    -- hash), the keys themselves are counted, which takes twice as long.
    where (
        select
            count(distinct hash_record_extended(row({{ columns }}), 0)) < count(*)
            or bool_or(num_nulls({{ columns }}) > 0)
        from {{ model }}
    )
    group by {{ columns }}
    having count(*) > 1 or num_nulls({{ columns }}) > 0
{% endtest %}
