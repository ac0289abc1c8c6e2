"""A model hub on loopback, and the small real models in it."""
