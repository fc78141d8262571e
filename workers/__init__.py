"""Lives: observation -> prompt -> completion -> action -> step record."""
