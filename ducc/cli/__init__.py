"""The command `ducc`: one module for each of its sub-commands, found by name."""
