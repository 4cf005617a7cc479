-- One row per source with published calls: how far they reach.
with sources as (
    select * from {{ published('dim_source') }}
),

calls as (
    select * from {{ published('fct_calls') }}
),

-- One look at the end of an index per source; grouping would read the whole history.
newest as (
    select
        sources.source,
        (
            select max(calls.arrived_at) from calls
            where calls.source = sources.source and calls.calls = 1
        ) as newest_arrival_at
    from sources
),

final as (
    select
        source,
        newest_arrival_at
    from newest
    where newest_arrival_at is not null
)

select * from final
