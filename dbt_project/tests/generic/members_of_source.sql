{#- Codes of a source that the dimension does not know for that source. -#}
{% test members_of_source(model, column_name, to) %}
    select distinct
        facts.source,
        facts.{{ column_name }}
    from {{ model }} as facts
    where not exists (
        select 1
        from {{ to }} as members
        where
            members.source = facts.source
            and members.{{ column_name }} = facts.{{ column_name }}
    )
{% endtest %}
