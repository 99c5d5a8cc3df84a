"""A published repository as a file system that can be mounted.

What whoever mounts may rely on: every byte shown is reached by hashes from a manifest whose signature was verified;
nothing is fetched before it is touched; what was read once is read from this machine from then on; a new revision
appears by itself while open files keep what they were opened with; and a server that is gone costs an error, never a
wrong byte nor a hanging program.

What to mount: `configuration` finds the stock client's files and `shell` reads them, `parameters` makes values of them,
`opening` opens a repository accordingly. What to believe: `head` knows which manifest, from what a `pin` wants, a
`breadcrumb` remembers and a `blacklist` forbids; `notices` bring news of it. Where it comes from: `network` asks
servers and proxies, `fetch` turns names into verified bytes, `cache` keeps them on disk (`room` makes place there,
`alone` lets one process fetch at a time).

What is shown: `catalogs` holds open catalogs, `attachments` says where each of them is mounted, `inodes` numbers their
rows; `changes` tells two of them apart and `refresh` puts one in the other's place; `repository` is all of that as one
tree. `view` says how entries look on this machine, `xattrs` and `magic` what their attributes are.

How it is mounted: `fuse` answers the kernel's questions, which `wire` reads and `connection` brings; `daemon` is the
process behind a mount, `background` lets it go on alone, `renewal` lets a newer one follow, `mountpoint` is what the
outside sees of it. `automount` mounts what is touched, for the kernel's `autofs`. `control` takes questions and orders,
`orders` carries them out, and `metrics` puts them as Prometheus wants them.
"""
