-- One row per rule of abnormal calls and version.
with rules as (
    select * from {{ ref('anomaly_rules') }}
),

final as (
    select
        rule,
        version as rule_version,
        source,
        component,
        comparison,
        threshold,
        name_en as rule_name,
        name_zh as rule_name_zh,
        reason_en as reason,
        reason_zh,
        valid_from,
        valid_to
    from rules
)

select * from final
