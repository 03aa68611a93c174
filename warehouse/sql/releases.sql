-- The releases of this lake, the newest first.
SELECT release, created_at, code_version, run_id, counts FROM releases ORDER BY release DESC
