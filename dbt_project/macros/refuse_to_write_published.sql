{#-
    dbt would replace published tables, and with them their row security, without a word.
    Only ops.publish writes to marts.
-#}
{% macro refuse_to_write_published() %}
    {%- if execute and target.name == 'published'
        and flags.WHICH in ['build', 'run', 'retry', 'seed', 'snapshot', 'clone'] -%}
        {{ exceptions.raise_compiler_error(
            "target 'published' is for reading: days are published by `./callhouse transform`"
        ) }}
    {%- endif -%}
{% endmacro %}
