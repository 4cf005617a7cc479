-- Reports by mail: what was due to whom and what became of it. Idempotent.
set role callhouse_owner;

-- One row per report, recipient and moment it was due. The first of a pair says since when the
-- recipient has it, so that nobody is sent what was due before.
create table if not exists ops.report_sends (
    send_id bigint generated always as identity primary key,
    report text not null,
    person text not null references sec.people,
    due_at timestamptz not null,
    status text not null
    check (status in ('subscribed', 'sending', 'sent', 'kept', 'failed', 'refused')),
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    row_count bigint,      -- rows behind what the mail shows
    is_export boolean,     -- rows were attached
    message_id text,
    detail text,           -- why not; where it is kept
    unique (report, person, due_at)
);

create table if not exists ops.report_pauses (
    report text primary key,
    paused_at timestamptz not null,
    paused_by text not null,
    resumed_at timestamptz
);

-- Where a person's mail goes, and how they read it. Kept with the person and not with a report:
-- who may write a report must not be able to send somebody's rows elsewhere.
alter table sec.people add column if not exists mail text;
alter table sec.people add column if not exists language text check (language in ('en', 'zh'));
alter table sec.people add column if not exists time_zone text;

reset role;
