#!yaml
base:
  '*':
    - transcribe
    - overrides  # of the operator's bake.toml; they win
