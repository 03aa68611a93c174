-- Where one kept face comes from: crawl, raw shard, detector, release.
-- row: none  its row_id
FROM lineage WHERE row_id = $row
