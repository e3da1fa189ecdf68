"""For all tests: properties are judged by what they say, not by how long a busy machine takes."""

from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
