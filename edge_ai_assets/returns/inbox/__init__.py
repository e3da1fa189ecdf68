"""Azure's side: packages are checked, merged into the global Delta tables, and told of."""
