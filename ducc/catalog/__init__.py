"""Catalogs: SQLite databases that describe a subtree each, and nested in one another describe a whole tree.

`schema` says what stands in which column, `reader` answers from one catalog, `tree` holds many as one value,
`split` decides where to nest, `writer` turns a tree into catalogs, `history` and `reflog` name roots for posterity.
"""
