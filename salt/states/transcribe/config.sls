# The pillar as JSON: the only configuration that the programs read.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout

config-written:
  file.serialize:
    - name: {{ it.root }}/config/transcribe.json
    - dataset_pillar: transcribe
    - serializer: json
    - serializer_opts:
      - indent: 2
      - sort_keys: true
    - user: root
    - group: {{ it.group }}
    - mode: '0640'
    - show_changes: false
    - require:
      - sls: transcribe.layout

{%- if it.auth.keys_file %}

config-keys:
  file.managed:
    - name: {{ it.auth.keys_file }}
    - replace: false  # the operator's; empty at first, so that nobody has access
    - makedirs: true
    - user: root
    - group: {{ it.group }}
    - mode: '0640'
    - require:
      - sls: transcribe.layout
{%- endif %}
