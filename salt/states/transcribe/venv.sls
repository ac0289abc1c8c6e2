# Third-party packages, exactly as the lock pins them: for CUDA where there is a GPU when this is first built.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout
  - transcribe.packages

venv-synced:
  transcribe_venv.synced:
    - name: {{ it.root }}/venv
    - lock: {{ salt['transcribe.lock']() }}
    - python: {{ it.install.python }}
    - require:
      - sls: transcribe.layout
      - pkg: packages-python
