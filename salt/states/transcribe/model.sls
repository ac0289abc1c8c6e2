# The pinned model: verified file by file, warmed up, and described in cache_info.json.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.venv
  - transcribe.code
  - transcribe.config

model-cached:
  transcribe_model.cached:
    - name: {{ it.model.id }}
    - revision: {{ it.model.revision }}
    - root: {{ it.root }}
    - require:
      - sls: transcribe.venv
      - sls: transcribe.code
      - sls: transcribe.config
