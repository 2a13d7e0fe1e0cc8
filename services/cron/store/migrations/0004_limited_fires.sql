-- How often a limit of the scheduler ended a fire's try: after some of these it is given up, however long an outage lasted before.

ALTER TABLE fire
    ADD COLUMN limited integer NOT NULL DEFAULT 0;
