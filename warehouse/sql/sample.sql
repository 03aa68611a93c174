-- Kept pairs at random, but always the same ones of a release (by hash, not by chance).
-- rows: 20  how many
SELECT row_id, split, face_px, caption, image_url FROM corpus ORDER BY md5(row_id) LIMIT $rows
