"""What registries hold, verified: `client` asks for it, `auth` answers when a registry wants to know who asks.

Nothing a registry says is believed: manifests and configs are compared with their digests here, layer blobs by whoever
reads their stream; credentials go to the registry they were given for and to no other host it may name.
"""
