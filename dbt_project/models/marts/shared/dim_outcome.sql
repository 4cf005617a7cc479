-- One row per outcome of a call or of a visit to a queue.
with outcomes as (
    select * from {{ ref('outcomes') }}
),

final as (
    select
        outcome,
        name_en as outcome_name,
        name_zh as outcome_name_zh,
        is_offered,
        sort_order
    from outcomes
)

select * from final
