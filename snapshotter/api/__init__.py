"""Generated from `snapshots.proto`: never edited."""
