"""Azure's services in place of the embedded defaults. `configured` makes them of the settings.

A folder a service; one of a single module has none: `powerbi`, `registries`, and `training` on this machine.
`identity`, `calling` and `storage` serve the others.
"""
