"""The containerd snapshotter: images whose layers are published start without being pulled.

`snapshots` says what becomes of a snapshot and what is refused, and opens nothing; `store` remembers, `remote` reads
from labels which published layer is asked for. `calls` are containerd's ten calls on values, `service` puts them on
the wire, `entrance` lets in whom the socket is for, `main` is the program. What is local and what is published,
`ducc.rootfs` knows.
"""
