-- The quality check: what people found of calls that break a rule. Idempotent.
set role callhouse_owner;

-- By what is checked and not by a row of a mart: a day that is built again keeps its reviews.
create table if not exists ops.quality_reviews (
    call_key text not null,
    rule text not null,
    rule_version integer not null,
    verdict text not null check (verdict in ('confirmed', 'harmless', 'bad_data')),
    note text check (length(note) <= 500),  -- redacted before it is written
    reviewed_by text not null,
    reviewed_at timestamptz not null default clock_timestamp(),
    primary key (call_key, rule, rule_version)
);

-- A person who answers for others reviews what they see; bi.quality_checks says what that is, and is
-- made with the marts. Returns the versions that left the queue.
create or replace function sec.review_call(
    wanted_call text, wanted_rule text, wanted_verdict text, wanted_note text
) returns integer[]
language plpgsql security definer set search_path = pg_catalog as $$
declare
    versions integer[];
begin
    if not exists (
        select from sec.people as p
        where p.person = session_user and p.level in ('lead', 'manager') and p.closed_at is null
    ) then
        raise exception '% reviews no calls: leads and managers do', session_user
            using errcode = 'insufficient_privilege';
    end if;
    with written as (
        insert into ops.quality_reviews (call_key, rule, rule_version, verdict, note, reviewed_by)
        -- Row security of the view holds here, too: session_user stays that of the caller.
        select q.call_key, q.rule, q.rule_version, wanted_verdict, wanted_note, session_user
        from bi.quality_checks as q
        where q.call_key = wanted_call and q.rule = wanted_rule
        on conflict do nothing
        returning rule_version
    )
    select array_agg(w.rule_version) into versions from written as w;
    if versions is null then
        raise exception 'no open check of % by rule % that % may see',
            wanted_call, wanted_rule, session_user
            using errcode = 'no_data_found';
    end if;
    return versions;
end
$$;

revoke execute on function sec.review_call(text, text, text, text) from public;
grant execute on function sec.review_call(text, text, text, text) to callhouse_reader;

reset role;
