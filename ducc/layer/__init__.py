"""A layer: from a compressed blob of a registry to the members it means, or a refusal with a reason.

What this folder promises about bytes that nobody vouches for:

- Nothing is believed before it is verified. When the last member has been read, the blob was the one that its digest
  names and the tar was the one that its diff id names; otherwise an error said so.
- A layer means what the container runtimes make of it (Go's `archive/tar`), or it is refused. Where readers of tar
  disagree there is no third reading.
- Time and memory are bounded, whatever the archive claims: headers, maps of sparse files, the uncompressed size.
- No key, no network, no clock, no file of the host is touched: bytes in, members out.

Read top down: `entries` (what ingest uses) ← `whiteout`, `attributes` (what names and attributes mean) ← `tar` (an
archive's members; its parts are `block`, `pax` and `sparse`) ← `decompress` ← `window`, `stream` (digests checked while
bytes pass).
"""
