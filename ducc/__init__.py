"""Container images, published once into a CernVM-FS-format repository, run anywhere.

The flow of data is the order of the packages: `wishlist` → `registry` → `layer` → `ingest` → `catalog` →
`publish` → `client`. `docs/architecture.md` draws it; every package says what it promises in its `__init__`.
"""

__version__ = "0.1.0"
USER_AGENT = f"ducc/{__version__}"  # by which servers know us
