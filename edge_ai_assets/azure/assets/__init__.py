"""Assets of Azure's side, a module a stage. Thin: what they call lives in `readings`, `ml`, `delivery`,
`returns`."""
