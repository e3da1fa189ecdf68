"""A storage account: its blobs and its queues. What packages and a home's files are to it is `uplink`'s and
`mirror`'s."""
