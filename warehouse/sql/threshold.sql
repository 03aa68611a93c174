-- What a higher least face size would lose, by picture host (rules are tried in full by gptface whatif).
-- px: 96  the least size of a face
-- rows: 20  how many hosts to show
SELECT image_host, count(*) AS kept, count(*) FILTER (face_px < $px) AS lost,
       round(avg((face_px < $px)::INT), 3) AS lost_share
FROM corpus GROUP BY image_host ORDER BY lost DESC, image_host LIMIT $rows
