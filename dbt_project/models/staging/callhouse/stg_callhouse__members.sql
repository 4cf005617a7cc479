-- One row per code that a source has ever used, by kind of code.
with members as (
    select * from {{ source('staging', 'members') }}
),

final as (
    select
        source,
        kind,
        code
    from members
)

select * from final
