"""Ready-made queries: `gptface sql --query NAME` runs NAME.sql (see `warehouse.queries`)."""
