-- The live lane: how far each file that a collector follows was read. A row moves in the
-- transaction that lands what was read, so that no line is lost and none comes twice.
set role callhouse_owner;

create table if not exists ops.tail_files (
    file_id bigint generated always as identity primary key,
    feed text not null,
    path text not null,               -- as it is followed; rotation moves the file away from it
    device bigint not null,
    inode bigint not null,            -- used again by the file system: `mark` tells files apart
    offset_bytes bigint not null default 0,
    lines bigint not null default 0,
    mark text not null default '',    -- hashes of its first bytes and of those before the offset
    is_current boolean not null,      -- still at `path`, as far as is known
    looked_at timestamptz not null,   -- of the current one: until then everything beside it is known
    left_at timestamptz,              -- when another file was found at `path`
    finished_at timestamptz
);
create unique index if not exists tail_files_current
on ops.tail_files (feed, path) where is_current;

reset role;
