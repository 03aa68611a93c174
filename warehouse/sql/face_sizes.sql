-- Kept faces by the shorter side of the box, in steps of 32 pixels.
SELECT (face_px // 32 * 32)::INT AS from_px, count(*) AS faces, round(avg(score), 3) AS mean_score
FROM corpus GROUP BY from_px ORDER BY from_px
