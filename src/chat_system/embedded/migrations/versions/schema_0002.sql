-- Posting writes a row and one entry of an index; what else was written for each message is found otherwise.

-- Chats of which the search index does not know the newest messages: those numbered above `above`. A row comes with
-- the first of them and goes when the index has caught up. since is about when the oldest of them was posted.
CREATE TABLE search_behind (
    chat_id  INTEGER PRIMARY KEY,
    above    INTEGER NOT NULL,
    since    INTEGER NOT NULL
) STRICT;

-- The revision that a changed message was created with, NULL while it still has that one. Creations take rising
-- revisions in the order of numbers, so among messages that never changed a revision is found by halving, without an
-- index. Of what had changed before this migration something between its neighbours' is known, which is enough.
ALTER TABLE messages ADD COLUMN first_revision INTEGER;

UPDATE messages SET first_revision = rising.revision FROM (
    SELECT id, max(iif(updated_at IS NULL, revision, id & 4294967295)) OVER (PARTITION BY id >> 32 ORDER BY id) AS revision
    FROM messages WHERE id >> 32 IN (SELECT id >> 32 FROM messages WHERE updated_at IS NOT NULL)
) rising WHERE rising.id = messages.id AND updated_at IS NOT NULL;

-- Live streams and changed_after: what changed after its creation, by revision; unique, because a revision is taken once.
DROP INDEX messages_by_revision;

CREATE UNIQUE INDEX messages_by_change ON messages (id >> 32, revision) WHERE first_revision IS NOT NULL;
