"""From what people write to what is wished: YAML to wishes, wildcards to references.

A file that can't be understood as a whole is refused as a whole, with every fault at its line and column. One broken
line among good ones is carried beside them: it fails alone.
"""
