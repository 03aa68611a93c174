-- Kept faces by light and pose: how many, and what share of all.
SELECT CASE WHEN brightness < 80 THEN 'dark' WHEN brightness < 160 THEN 'medium' ELSE 'bright' END AS light,
       CASE WHEN abs(yaw_deg) < 15 THEN 'frontal' WHEN abs(yaw_deg) < 45 THEN 'turned' ELSE 'profile' END AS pose,
       count(*) AS faces, round(count(*) / sum(count(*)) OVER (), 4) AS share
FROM corpus GROUP BY light, pose ORDER BY faces DESC, light, pose
