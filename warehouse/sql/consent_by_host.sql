-- Hosts that refuse: pairs, and what said so.
-- rows: 20  how many to show
SELECT image_host, reason, count(*) AS pairs
FROM consent JOIN pairs USING (row_id) WHERE NOT allowed GROUP BY ALL ORDER BY pairs DESC, image_host, reason LIMIT $rows
