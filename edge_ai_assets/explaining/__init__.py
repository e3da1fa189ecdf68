"""What is known of one score, by where it is known: `ashore` and `making` on Azure's side, `aboard` on the
site's disk, `running` in Dagster's log and in what came home of the site's. `edge_ai_assets.explain` puts
them together.
"""
