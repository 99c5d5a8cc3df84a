"""A pull registry made of published repositories: `ducc serve --registry`.

Engines are pointed at it as a mirror, and learn from it what a published image is made of, also while the image's own
registry is down. It reads mounts and nothing else: what it can't find there, it does not have.
"""
