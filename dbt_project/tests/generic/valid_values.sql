{#-
    Values that a table must not have: a row for each with its column, its source and how many rows
    have it. All columns in one test, because each test reads the table and asks dbt anew.

    `fail` and `warn` say, per severity, which columns hold
    - `members_of_source`: members of a dimension that knows them for the row's source; null is none
    - `members`: members of a dimension, or null
    - `codes`: one of a set, or null
    - `not_negative`: no number below zero

    Sets are written `{a, b}`, the keys of a mapping: dbt renders each string of a list as a template
    of its own, which took as long as the rest of the test.
-#}
{% test valid_values(model, fail={}, warn={}) %}
    {{- config(error_if="!= 0 and bool_or(severity = 'fail')") -}}
    {%- set checks = [] -%}
    {%- for severity, wanted in [('fail', fail), ('warn', warn)] -%}
        {%- for column, dimension in wanted.get('members_of_source', {}).items() -%}
            {%- set is_wrong -%}
                not exists (
                    select 1
                    from {{ dimension }} as members
                    where members.source = facts.source and members.{{ column }} = facts.{{ column }}
                )
            {%- endset -%}
            {%- do checks.append((severity, column, is_wrong, 'not in ' ~ dimension.identifier)) -%}
        {%- endfor -%}
        {%- for column, dimension in wanted.get('members', {}).items() -%}
            {%- set is_wrong -%}
                facts.{{ column }} is not null and not exists (
                    select 1
                    from {{ dimension }} as members
                    where members.{{ column }} = facts.{{ column }}
                )
            {%- endset -%}
            {%- do checks.append((severity, column, is_wrong, 'not in ' ~ dimension.identifier)) -%}
        {%- endfor -%}
        {%- for column, codes in wanted.get('codes', {}).items() -%}
            {%- set is_wrong -%}
                facts.{{ column }} not in ('{{ codes | join("', '") }}')
            {%- endset -%}
            {%- do checks.append((severity, column, is_wrong, 'no known code')) -%}
        {%- endfor -%}
        {%- for column in wanted.get('not_negative', []) -%}
            {%- do checks.append((severity, column, 'facts.' ~ column ~ ' < 0', 'negative')) -%}
        {%- endfor -%}
    {%- endfor -%}
    select
        found.severity,
        found.column_name,
        found.value,
        found.problem,
        -- Not every table has one.
        to_jsonb(facts) ->> 'source' as of_source,
        count(*) as rows_found
    from {{ model }} as facts
    cross join lateral (
        values
        {% for severity, column, is_wrong, problem in checks -%}
            ('{{ severity }}', '{{ column }}', facts.{{ column }}::text, '{{ problem }}', {{ is_wrong }})
            {{- ', ' if not loop.last }}
        {% endfor -%}
    ) as found (severity, column_name, value, problem, is_wrong)
    where
        found.is_wrong
        -- The same once more, for the scan: good rows, nearly all, then go no further.
        and (
            {%- for _, _, is_wrong, _ in checks %}
            ({{ is_wrong }}){{ ' or' if not loop.last }}
            {%- endfor %}
        )
    group by found.severity, found.column_name, found.value, found.problem, of_source
    order by found.severity, rows_found desc, found.column_name, found.value, of_source
{% endtest %}
