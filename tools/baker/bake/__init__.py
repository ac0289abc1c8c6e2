"""One bake, from plan to verified image."""
