-- Kept pairs and duplicate clusters per split.
SELECT split, count(*) AS pairs, count(DISTINCT cluster_id) AS clusters FROM corpus GROUP BY split ORDER BY split
