-- The executor's own RegisterExecutor call, a colonies.call.v1.SignedCall as it came: auth keeps it with the approval. Empty for
-- those that registered before it was kept.
ALTER TABLE executor ADD COLUMN registration bytea NOT NULL DEFAULT '';
