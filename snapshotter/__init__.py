"""The containerd snapshotter: images whose layers are published start without being pulled.

`snapshots` says what becomes of a snapshot and what is refused, and opens nothing; `store` remembers, `disk` holds what
is local, `remote` finds what is published. `calls` are containerd's ten calls on values, `service` puts them on the
wire, `entrance` lets in whom the socket is for, `main` is the program.
"""
