-- The audit of takedowns: what was removed, never what it was.
FROM takedowns ORDER BY "at" DESC
