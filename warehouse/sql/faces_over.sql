-- Kept faces over a size, by split.
-- px: 128  shorter side of the face's box
SELECT split, count(*) AS faces, round(avg(face_px), 1) AS mean_px, round(avg(score), 3) AS mean_score
FROM corpus WHERE face_px >= $px GROUP BY split ORDER BY split
