"""How fast, in how many bytes, in how much memory: figures of whole processes, against a peer in the same run.

`make bench` builds the images it needs (they are kept), starts a registry on loopback and prints one table;
`python -m bench P1 P5` prints those figures only. Seconds are medians of several runs, ours and the peer's in turn, so
that a machine that slows down slows both. Nothing is deleted between runs: a file system is slow to create files right
after many were removed.
"""
