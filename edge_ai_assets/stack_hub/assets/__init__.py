"""Assets of the sites' side, a module a stage. Thin: what they call lives in `delivery`, `scoring`,
`returns`."""
