-- Where the captions of the corpus stood on their pages, and how long they are.
SELECT caption_kind, count(*) AS captions, round(avg(length(caption)), 1) AS mean_chars
FROM corpus GROUP BY caption_kind ORDER BY captions DESC, caption_kind
