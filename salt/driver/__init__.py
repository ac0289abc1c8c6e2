"""What a machine does with its parameters: bake itself, or prove that it is what was baked. Standard library only."""
