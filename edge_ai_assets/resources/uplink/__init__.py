"""The road home over a storage account: a site's end, Azure's end, and the connections between them."""
