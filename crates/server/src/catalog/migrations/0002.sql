-- Until when a vault counts as restored from a backup: what was lost with it may come back without all of its chunks.
ALTER TABLE vaults ADD COLUMN restored_ms INTEGER NOT NULL DEFAULT 0;

-- Machines that came back with lost commits have no name until they register; there may be several.
DROP INDEX machine_names;
CREATE UNIQUE INDEX machine_names ON machines (vault, name) WHERE revoked_ms IS NULL AND name <> '';
