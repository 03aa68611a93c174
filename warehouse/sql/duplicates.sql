-- Duplicate clusters with more than one picture on more than one page, the largest first.
SELECT cluster_id, count(*) AS pairs, count(DISTINCT i.image_id) AS pictures,
       min(pairs.image_url) FILTER (kept) AS kept_address
FROM decisions JOIN pairs USING (row_id) JOIN images i USING (url_id)
WHERE cluster_id IS NOT NULL GROUP BY cluster_id HAVING count(*) > 1 ORDER BY pairs DESC, cluster_id
