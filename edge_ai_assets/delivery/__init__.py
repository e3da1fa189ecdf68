"""Delivery: from a promoted model to a checked release on a site: images, registry, signatures, bundles.

What runs a release on a site is `scoring`'s; what comes home from a site is `returns`'s.
"""
