"""Which directories make an image, and how they are put over one another.

What container engines ask, whatever their protocol. `locate` finds a published layer, as its stack needs it, below the
mountpoint of a repository, ours or the stock client's; `second_mount` says which of them are as well read on one
without attributes; `published` asks all repositories, in order and in time;
`overlay` words the mount, and opens nothing; `mounts` is the kernel's side. `disk` and `state` hold what is local.
"""
