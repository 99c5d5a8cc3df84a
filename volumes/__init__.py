"""Docker's volume plugin: repositories as volumes of any container, with every version of Docker.

names.py      the name of a volume says what it shows: FQRN, or FQRN@SNAPSHOT
store.py      which volumes there are, who uses them, and where they are mounted
snapshots.py  the root hash that a snapshot's name stands for
mounting.py   mounts of repositories, made by our client
driver.py     Docker's calls
main.py       the program
"""
