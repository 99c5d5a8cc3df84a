"""What registries hold, verified: `client` asks for it, `auth` answers when a registry wants to know who asks.

`settings`, which `settingsfile` reads, says how an operator wants them asked, `credentials` and `logins` who we are,
`routes` finds the mirrors, `manners` waits where all must wait, `remembered` keeps what need not be asked for twice,
`blob` and `builds` take an image apart.

Nothing a registry says is believed: manifests and configs are compared with their digests here, layer blobs by whoever
reads their stream; credentials go to the registry they were given for and to no other host it may name.
"""
