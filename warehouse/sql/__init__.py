"""Ready-made queries: `gptface sql NAME` runs NAME.sql; the first line of each says what it answers."""
