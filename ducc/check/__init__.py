"""Is a repository what it should be? Every rule of the format, checked on everything that can be reached.

`findings` names all that can be wrong, `catalog` judges one catalog by itself, `mounts` where two catalogs meet,
`roots` the manifest and what signs it, tags and reflog, `objects` the contents, and `repository` walks over it all.
"""
