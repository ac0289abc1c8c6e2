"""What makes the engine fast on processors: int8 products, and loops that pass over memory once."""
