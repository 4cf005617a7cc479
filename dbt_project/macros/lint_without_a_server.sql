{#-
    sqlfluff's dbt templater lists the server's relations before it renders a model, though it
    needs none of them. Under target `lint` there are none, so that `make lint` needs no server.
-#}
{% macro postgres__list_relations_without_caching(schema_relation) %}
    {% if target.name == 'lint' %}
        {{ return([]) }}
    {% endif %}
    {{ return(dbt.postgres__list_relations_without_caching(schema_relation)) }}
{% endmacro %}

{% macro postgres__get_relations() %}
    {% if target.name == 'lint' %}
        {{ return([]) }}
    {% endif %}
    {{ return(dbt.postgres__get_relations()) }}
{% endmacro %}
