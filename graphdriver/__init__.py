"""Docker's graph driver: images whose layers are published run from a repository's mount, others as with overlay2.

`layers` says what a layer is and what is refused, and opens nothing; `store` remembers. `unpack` turns an archive into
a directory that overlayfs can stack; `changes` and `archive` turn such a directory into a list and an archive again.
`mounting` is the kernel's side. `driver` is Docker's calls on values, `calls` puts them into the words of the protocol,
`main` is the program.
"""
