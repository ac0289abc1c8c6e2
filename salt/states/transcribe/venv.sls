# Third-party packages, exactly as the lock pins them: for CUDA where there is a GPU when this is first built.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout
  - transcribe.gpu
  - transcribe.packages

venv-synced:
  transcribe_venv.synced:
    - name: {{ it.root }}/venv
    - lock: {{ salt['transcribe.lock']() }}
    - python: {{ it.install.python }}
    - require:
      - sls: transcribe.layout
      - sls: transcribe.gpu  # gigabytes are not downloaded for a GPU that cannot be used
      - pkg: packages-python
