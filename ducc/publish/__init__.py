"""What makes a set of changes a new revision that clients see, all at once or not at all.

`keys` and `init` make a repository, `repository` reads the published state, `changes` say what is to be different,
and `commit` writes it: objects, catalogs, tag database, reflog, and the manifest last.
"""
