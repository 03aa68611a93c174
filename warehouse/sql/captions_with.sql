-- Kept faces whose caption holds a word (as a whole word, in any case), with where they come from.
-- word: glasses  the word to look for
-- rows: 20  how many to show
SELECT row_id, face_px, caption, image_url FROM corpus
WHERE regexp_matches(caption, '\b' || regexp_escape($word) || '\b', 'i') ORDER BY row_id LIMIT $rows
