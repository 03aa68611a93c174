-- Addresses that could not be had, by reason and HTTP status.
SELECT status, reason, http_status, count(*) AS addresses
FROM images WHERE status <> 'ok' GROUP BY ALL ORDER BY addresses DESC, reason, http_status
