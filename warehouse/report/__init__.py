"""The report: one self-contained HTML page about a release of the corpus, and about a model where there is one."""
