# Verification: components, units, cache and health every time; a clip through HTTP whenever something changed.

include:
  - transcribe.layout
  - transcribe.packages
  - transcribe.gpu
  - transcribe.venv
  - transcribe.code
  - transcribe.config
  - transcribe.model
  - transcribe.service
  - transcribe.tuning

verify-machine:
  transcribe_verify.passed:
    - name: the machine works
    - watch:
      - sls: transcribe.layout
      - sls: transcribe.packages
      - sls: transcribe.gpu
      - sls: transcribe.venv
      - sls: transcribe.code
      - sls: transcribe.config
      - sls: transcribe.model
      - sls: transcribe.service
      - sls: transcribe.tuning
