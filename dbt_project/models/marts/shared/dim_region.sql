-- One row per region: provinces of China, other countries as a whole, and codes not named yet.
with regions as (
    select * from {{ ref('regions') }}
),

members as (
    select * from {{ ref('int_members__known') }}
),

agents as (
    select * from {{ ref('int_agents__versions') }}
),

used as (
    select code as region_code from members
    where kind = 'region'
    union
    select region_code from agents
),

-- A code without a name is shown as it is: no row may hide behind a missing name.
unnamed as (
    select used.region_code
    from used
    left join regions on used.region_code = regions.region_code
    where regions.region_code is null
),

final as (
    select
        region_code,
        name_en as region_name,
        name_zh as region_name_zh,
        area,
        area_name_en as area_name,
        area_name_zh
    from regions
    union all
    select
        region_code,
        region_code as region_name,
        region_code as region_name_zh,
        'unknown' as area,
        'Unknown' as area_name,
        '未知' as area_name_zh
    from unnamed
)

select * from final
