-- Sums of costs go over sources and channels: two currencies would be added up as if they were one.
{{ config(severity='warn') }}
select
    min(currency) as currency,
    max(currency) as other_currency
from {{ ref('channel_costs') }}
having count(distinct currency) > 1 or count(currency) < count(*)
