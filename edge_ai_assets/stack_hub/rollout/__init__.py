"""How a release reaches the sites: ring by ring, on evidence, and back when an operator says so.

`intervals` and `evidence` judge, `rings` decides, `control` keeps what people decided, `looking` reads the
sites, `telling` puts decisions into Dagster's log, `steps` is what job and command line do. docs/rollout.md
"""
