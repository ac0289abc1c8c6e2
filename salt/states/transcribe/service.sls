# The two processes, started again whenever something that they run on has changed.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout
  - transcribe.packages
  - transcribe.venv
  - transcribe.code
  - transcribe.config
  - transcribe.model

{%- for unit in ['worker', 'api'] %}

service-{{ unit }}-unit:
  file.managed:
    - name: /etc/systemd/system/transcribe-{{ unit }}.service
    - source: salt://service/transcribe-{{ unit }}.service
    - template: jinja
    - user: root
    - group: root
    - mode: '0644'

service-{{ unit }}-running:
  service.running:
    - name: transcribe-{{ unit }}
    - enable: true
    - require:
      - sls: transcribe.layout
      - sls: transcribe.packages
    - watch:
      - file: service-{{ unit }}-unit
      - sls: transcribe.venv
      - sls: transcribe.code
      - sls: transcribe.config
      {%- if unit == 'worker' %}
      - sls: transcribe.model
      {%- endif %}
{%- endfor %}
