-- Kept faces whose picture had to be asked for more than once, by its host.
-- rows: 20  how many hosts to show
SELECT c.image_host, count(*) AS faces, max(i.attempts) AS most_attempts
FROM corpus c JOIN (FROM images WHERE attempts > 1) i USING (image_url)
GROUP BY ALL ORDER BY faces DESC, c.image_host LIMIT $rows
