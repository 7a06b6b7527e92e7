"""Raw files -> requests: loaders, simulators, candidate sets, and the store of prepared arrays."""
