"""model_cache."""
