"""From a layer's stream to a layer tree, and from layer trees to an image tree.

Nothing is unpacked: entries pass once, contents become objects (`contents`), names become a tree (`layer_tree`),
and image trees are made of layer trees without touching a content again (`graft`). What comes out depends on the
layers alone, whatever the number of threads, the machine or the repository.
"""
