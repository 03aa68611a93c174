-- Models and what they were trained on.
SELECT model, kind, preset, release, alias, created_at, metrics FROM models ORDER BY created_at DESC, model
