"""Property tests here take as long as a shared machine makes them take: no test asserts time."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
