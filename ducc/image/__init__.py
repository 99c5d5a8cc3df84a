"""The nouns of container images, pure: a value in hand is well formed, and what it was read from is kept as it came.

`reference` names an image, `digest` names bytes, `manifest` and `config` say what an image is made of, `platform`
chooses among its builds. Nothing here opens a file, a socket or a clock. Sources: the OCI image and distribution
specifications, Docker's schema 2, and where those leave room, what containerd makes of it.
"""
