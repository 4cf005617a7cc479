-- One row per source, day and rule of abnormal calls that holds then.
with calls as (
    select * from {{ ref('int_calls__unioned') }}
),

rules as (
    select * from {{ ref('dim_anomaly_rule') }}
),

days as (
    select
        source,
        business_day
    from calls
    group by source, business_day
),

in_force as (
    select distinct on (days.source, days.business_day, rules.rule)
        days.source,
        days.business_day,
        rules.rule,
        rules.rule_version,
        rules.component,
        rules.comparison,
        rules.threshold,
        rules.rule_name,
        rules.reason
    from days
    inner join rules
        on
            rules.source in (days.source, '*')
            and days.business_day >= rules.valid_from
            and (rules.valid_to is null or days.business_day < rules.valid_to)
    order by
        days.source asc,
        days.business_day asc,
        rules.rule asc,
        rules.source = '*' asc,
        rules.valid_from desc
),

final as (
    -- A row without a threshold ends the rule for its source.
    select * from in_force
    where threshold is not null
)

select * from final
