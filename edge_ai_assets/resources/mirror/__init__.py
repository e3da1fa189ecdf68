"""The far end of a home: what Azure's side has made, kept in a storage account as well."""
