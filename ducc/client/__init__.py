"""A published repository as a file system that can be mounted.

What whoever mounts may rely on: every byte shown is reached by hashes from a manifest whose signature was verified;
nothing is fetched before it is touched; what was read once is read from this machine from then on; a new revision
appears by itself while open files keep what they were opened with; and a server that is gone costs an error, never a
wrong byte nor a hanging program.

`fetch` turns names into verified bytes, `cache` keeps them on disk, `head` knows which manifest to believe. `catalogs`
holds open catalogs, `attachments` says where each of them is mounted, `inodes` numbers their rows; `changes` tells two
of them apart and `refresh` puts one in the other's place. `repository` is all of that as one tree, `fuse` shows it to
the kernel, `daemon` is the process behind a mount, `background` lets it go on alone, and `mountpoint` is what the
outside sees of it.
"""
