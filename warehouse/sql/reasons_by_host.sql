-- Per picture host: pairs, kept, the share kept, and the most frequent reason for the rest.
SELECT image_host, count(*) AS pairs, count(*) FILTER (kept) AS kept, round(avg(kept::INT), 3) AS kept_share,
       mode(reason) FILTER (NOT kept) AS main_reason
FROM decisions GROUP BY image_host ORDER BY pairs DESC, image_host
