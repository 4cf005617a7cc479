{#-
    Literals and not a subquery: the planner prunes partitions by literals only.
    `reach` adds as many days before and after each claimed one.
-#}
{% macro claimed_days(reach=0) %}
    {%- if target.name in ['published', 'live'] -%}
        {#-
            Published relations are only read, and the live lane holds nothing but the days that go
            on: a day is then always one of "its own days".
        -#}
        business_day
    {%- else -%}
        {%- set days = [] -%}
        {#- Other commands (compile, docs, lint) need no server: they see no day. -#}
        {%- if execute and flags.WHICH in ['build', 'run', 'retry', 'show'] -%}
            {%- set query -%}
                select distinct business_day + shift as business_day
                from ops.claimed_days
                cross join generate_series(-{{ reach }}, {{ reach }}) as shift
                order by business_day
            {%- endset -%}
            {%- set days = run_query(query).columns[0].values() -%}
        {%- endif -%}
        {%- for day in days -%}
            date '{{ day }}'{{ ', ' if not loop.last }}
        {%- else -%}
            date '-infinity'
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}
