-- The first schema of embedded mode.

-- Applications. An erased one is hidden at once (erased_at) and removed piece by piece afterwards.
CREATE TABLE applications (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    token        TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL,
    chats_count  INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    erased_at    INTEGER
) STRICT;

-- Lists of applications go by age; the token breaks ties.
CREATE INDEX applications_by_age ON applications (created_at, token) WHERE erased_at IS NULL;

-- What the sweep has to remove.
CREATE INDEX applications_erased ON applications (id) WHERE erased_at IS NOT NULL;

-- Chats. AUTOINCREMENT: an id is never used again, so what an erased chat left behind can't show up in another.
CREATE TABLE chats (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    application_id  INTEGER NOT NULL REFERENCES applications (id),
    number          INTEGER NOT NULL,
    title           TEXT,
    metadata        BLOB,
    messages_count  INTEGER NOT NULL DEFAULT 0,
    revision        INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    UNIQUE (application_id, number)
) STRICT;

-- Messages. id is the chat's id * 2^32 + the message's number: the table is clustered by chat and number, which
-- is what pages ask for, and the search index can be asked for one chat by a range of ids.
-- folded is the body as search compares it, NULL where folding changes nothing. updated_at is NULL until a change.
CREATE TABLE messages (
    id              INTEGER PRIMARY KEY,
    application_id  INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    sender          TEXT,
    body            TEXT,
    folded          TEXT,
    metadata        BLOB,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER,
    deleted_at      INTEGER
) STRICT;

-- Live streams and changed_after read a chat by revision; unique, because a revision is taken once.
CREATE UNIQUE INDEX messages_by_revision ON messages (id >> 32, revision);

-- A search over an application goes from its newest message backwards.
CREATE INDEX messages_by_age ON messages (application_id, created_at);

-- Trigrams of folded bodies, rowid = messages.id. Contentless, and without positions: it only names candidates, each
-- of which is checked on its row.
CREATE VIRTUAL TABLE search USING fts5 (
    folded, content = '', columnsize = 0, detail = none, tokenize = 'trigram case_sensitive 1'
);

-- The search projection's journal: messages whose entry in the index is out of date. indexed_as is the text under
-- which the index holds the message now, NULL when it holds none. error is set on what was set aside.
CREATE TABLE search_queue (
    id          INTEGER PRIMARY KEY,
    indexed_as  TEXT,
    queued_at   INTEGER NOT NULL,
    error       TEXT
) STRICT;

-- Idempotency: what the first request with a key was allotted. once and fingerprint are hashes of key and payload.
-- application_id is 0 for the creation of applications. expires_at NULL: kept for ever.
CREATE TABLE receipts (
    application_id  INTEGER NOT NULL,
    once            BLOB NOT NULL,
    fingerprint     BLOB NOT NULL,
    number          INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    count           INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER,
    PRIMARY KEY (application_id, once)
) STRICT, WITHOUT ROWID;

CREATE INDEX receipts_by_expiry ON receipts (expires_at) WHERE expires_at IS NOT NULL;
