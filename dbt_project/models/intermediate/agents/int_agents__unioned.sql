-- One row per agent of a source and day from which a roster, or the records themselves, say so.
with unioned as (
    select * from {{ ref('stg_delimited__agents') }}
    union all
    select * from {{ ref('stg_amazon_connect__agents') }}
),

final as (
    select
        source,
        agent_id,
        agent_name,
        team_id,
        team_name,
        region_code,
        valid_from
    from unioned
)

select * from final
