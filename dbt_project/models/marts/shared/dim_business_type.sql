-- One row per business type, named where the code list knows it, with its product line.
with named as (
    select * from {{ ref('business_types') }}
),

lines as (
    select * from {{ ref('product_lines') }}
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

known as (
    select
        business_type,
        product_line,
        name_en as business_type_name,
        name_zh as business_type_name_zh
    from named
    union all
    select
        used.business_type,
        'unknown' as product_line,
        used.business_type as business_type_name,
        used.business_type as business_type_name_zh
    from used
    left join named on used.business_type = named.business_type
    where named.business_type is null
),

final as (
    select
        known.business_type,
        known.business_type_name,
        known.business_type_name_zh,
        known.product_line,
        lines.name_en as product_line_name,
        lines.name_zh as product_line_name_zh
    from known
    left join lines on known.product_line = lines.product_line
)

select * from final
