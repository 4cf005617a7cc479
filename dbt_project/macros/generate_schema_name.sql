{#- Schemas are fixed names, not suffixes: roles, grants and views rely on them. -#}
{% macro generate_schema_name(custom_schema_name, node) %}
    {%- if target.name == 'published' and node.fqn[1] == 'marts' -%}
        marts
    {%- elif target.name == 'live' and node.resource_type == 'model' -%}
        {{ target.schema }}
    {%- else -%}
        {{ custom_schema_name | trim if custom_schema_name else target.schema }}
    {%- endif -%}
{% endmacro %}
