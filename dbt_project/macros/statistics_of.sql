{#-
    Post-hook of tables. Fresh tables have no statistics; without them joins of a day turn into
    nested loops. A tenth of the usual sample is enough for that: the whole one took 5 s of CPU
    for every build. Views, which the live lane has, need none.
-#}
{% macro statistics_of(relation) %}
    {%- if target.name != 'live' -%}
        set local default_statistics_target = 10; analyze {{ relation }}
    {%- endif -%}
{% endmacro %}
