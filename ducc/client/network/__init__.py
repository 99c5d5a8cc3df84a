"""How a client reaches a repository: several servers, several proxies, and what to do when one of them fails.

`choices` remembers which of several to ask first, `store` asks them in turn for an object or a root file, and
`settings` are the rules. Connections are `ducc.storage.connections`'.
"""
