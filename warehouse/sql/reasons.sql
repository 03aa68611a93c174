-- Pairs per reason, in the order in which a row can fall; `remaining` are the pairs left after it.
SELECT stage, reason, pairs, remaining FROM funnel ORDER BY stage_order
