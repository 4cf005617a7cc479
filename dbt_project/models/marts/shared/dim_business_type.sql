-- One row per business type, named where the code list knows it.
with named as (
    select * from {{ ref('business_types') }}
),

members as (
    select * from {{ ref('int_members__known') }}
),

queues as (
    select * from {{ ref('int_queues__versions') }}
),

used as (
    select code as business_type from members
    where kind = 'business_type'
    union
    select business_type from queues
),

unnamed as (
    select used.business_type
    from used
    left join named on used.business_type = named.business_type
    where named.business_type is null
),

final as (
    select
        business_type,
        name_en as business_type_name,
        name_zh as business_type_name_zh
    from named
    union all
    select
        business_type,
        business_type as business_type_name,
        business_type as business_type_name_zh
    from unnamed
)

select * from final
