-- Pages with the most kept faces.
-- rows: 20  how many to show
SELECT page_url, count(*) AS faces FROM corpus GROUP BY page_url ORDER BY faces DESC, page_url LIMIT $rows
