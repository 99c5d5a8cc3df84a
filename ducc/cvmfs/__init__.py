"""The nouns of the CernVM-FS repository format, pure: what stands in which byte, no I/O and no clock.

Source of every rule: `docs/format.md` and the stock programs' behaviour; a stock client must accept these bytes.
"""
