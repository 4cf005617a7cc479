-- One row per channel.
with channels as (
    select * from {{ ref('channels') }}
),

final as (
    select
        channel,
        name_en as channel_name,
        name_zh as channel_name_zh
    from channels
)

select * from final
