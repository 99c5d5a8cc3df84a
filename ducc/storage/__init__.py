"""Where a repository's bytes lie: one contract (`base`), one implementation for each kind of place."""
