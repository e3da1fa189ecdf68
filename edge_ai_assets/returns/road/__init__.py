"""How packages leave a site and acknowledgements come back: a link, a diode, a medium carried by hand."""
