"""Which directories make an image, and how they are put over one another.

What container engines ask, whatever their protocol. `locate` finds a published layer below the mountpoint of a
repository, ours or the stock client's; `overlay` words the mount, and opens nothing; `mounts` is the kernel's side.
"""
