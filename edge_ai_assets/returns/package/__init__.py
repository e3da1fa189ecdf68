"""Return packages: what goes into one, its members as bytes, and reading one that came from elsewhere."""
