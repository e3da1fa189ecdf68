"""What runs a release on a site: one interface; a supervised process, Kubernetes, or systemd's units.

Which release, and when, is `stack_hub`'s decision; how it came to the site is `delivery`'s work.
"""
