-- Kept in the index' own table of settings. What happens without it, too: at 16 segments of one size all are merged at
-- once.
INSERT INTO search (search, rank) VALUES ('automerge', 0);
