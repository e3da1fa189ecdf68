"""The real services behind the interfaces of the other folders, one file each. Nothing here is a default."""
