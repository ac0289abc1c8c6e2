#!yaml
base:
  '*':
    - transcribe.layout
    - transcribe.packages
    - transcribe.gpu
    - transcribe.venv
    - transcribe.code
    - transcribe.config
    - transcribe.model
    - transcribe.service
    - transcribe.tuning
    - transcribe.verify
