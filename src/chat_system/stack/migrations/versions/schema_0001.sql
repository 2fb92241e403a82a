-- The first schema of stack mode, for MySQL 8.4 and MariaDB 10.11 and their successors.
--
-- A statement ends with a semicolon at the end of a line. Every one may be repeated: DDL does not roll back, so an
-- upgrade that was cut off is simply run again. Times are milliseconds since 1970. Texts compare byte by byte.
-- There are no foreign keys: facts arrive in any order, and every table can be sharded by application_id.

-- Applications. An erased one is hidden at once (erased_at) and removed piece by piece afterwards. The id is never
-- used again, so what an erased application left behind can't show up in another. once is the idempotency key that
-- created it.
CREATE TABLE IF NOT EXISTS applications (
    id           BIGINT NOT NULL AUTO_INCREMENT,
    token        CHAR(43) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name         VARCHAR(255) NOT NULL,
    chats_count  INT NOT NULL DEFAULT 0,
    once         BINARY(16),
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    erased_at    BIGINT,
    PRIMARY KEY (id),
    UNIQUE KEY applications_token (token),
    KEY applications_by_age (created_at, token),
    KEY applications_erased (erased_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Chats. version counts the changes of a chat's own fields: 1 is its opening, and 0 a chat whose count came first;
-- readers do not see that one. messages_count is as of revision.
CREATE TABLE IF NOT EXISTS chats (
    application_id  BIGINT NOT NULL,
    number          INT NOT NULL,
    title           VARCHAR(255),
    metadata        VARBINARY(4096),
    messages_count  INT NOT NULL DEFAULT 0,
    revision        BIGINT NOT NULL DEFAULT 0,
    version         BIGINT NOT NULL DEFAULT 0,
    created_at      BIGINT NOT NULL DEFAULT 0,
    updated_at      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (application_id, number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Messages, clustered as pages ask for them. updated_at is NULL until a change; a deleted message is a tombstone.
-- The second key is what live streams and changed_after read. It is not unique, though a revision is taken once:
-- an upsert would take a second unique key for the row that it has to change.
CREATE TABLE IF NOT EXISTS messages (
    application_id  BIGINT NOT NULL,
    chat_number     INT NOT NULL,
    number          INT NOT NULL,
    revision        BIGINT NOT NULL,
    sender          VARCHAR(255),
    body            MEDIUMTEXT,
    metadata        VARBINARY(4096),
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT,
    deleted_at      BIGINT,
    PRIMARY KEY (application_id, chat_number, number),
    KEY messages_by_revision (application_id, chat_number, revision)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Idempotency: what the first request with a key was allotted. once and fingerprint are hashes of key and payload.
-- application_id is 0 for the creation of applications. expires_at NULL: kept for ever.
CREATE TABLE IF NOT EXISTS receipts (
    application_id  BIGINT NOT NULL,
    once            BINARY(16) NOT NULL,
    fingerprint     BINARY(16) NOT NULL,
    number          BIGINT NOT NULL,
    revision        BIGINT NOT NULL,
    count           BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT,
    PRIMARY KEY (application_id, once),
    KEY receipts_by_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which life of a partition's stream is the current one. It is raised when Redis has lost the stream; what comes
-- from an earlier life is not applied any more.
CREATE TABLE IF NOT EXISTS journal_epochs (
    partition_id  INT NOT NULL,
    epoch         BIGINT NOT NULL,
    PRIMARY KEY (partition_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What the first start fixed and no later one may change, the number of partitions above all.
CREATE TABLE IF NOT EXISTS installation (
    name   VARCHAR(64) NOT NULL,
    value  VARCHAR(255) NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
