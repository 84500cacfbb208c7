-- A node that has a row has no pending id, under whatever path it was given one.
CREATE INDEX pending_by_node ON pending_ids (node);
