#!yaml
base:
  '*':
    - transcribe.layout
    - transcribe.packages
    - transcribe.venv
    - transcribe.code
    - transcribe.config
    - transcribe.model
    - transcribe.service
    - transcribe.tuning
    - transcribe.verify
