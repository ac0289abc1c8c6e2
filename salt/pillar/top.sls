#!yaml
base:
  '*':
    - transcribe
    - overrides  # of the operator's bake.toml; they win
    - launch  # of the machine's own user-data; they win over both
