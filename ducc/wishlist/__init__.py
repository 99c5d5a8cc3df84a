"""From what people write to what is wished: YAML to wishes, wildcards to references.

A file that can't be understood as a whole is refused as a whole, with every fault at its line and column, and the last
good one stays in force. One broken item among good ones is carried beside them: it fails alone.
"""
