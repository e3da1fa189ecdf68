"""Code location of Azure's side: lake, training, release, and what came home from the sites."""
