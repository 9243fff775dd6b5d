-- Redelivery of what was given up since a moment: dead letters before it are passed over.

ALTER TABLE lane ADD COLUMN since INTEGER NOT NULL DEFAULT 0 CHECK (since = 0 OR dead_only = 1);
