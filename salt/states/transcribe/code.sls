# The project's own programs, owned by root: the service cannot change what it runs.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout
  - transcribe.venv

code-package:
  file.recurse:
    - name: {{ it.root }}/scripts/transcribe
    - source: salt://service/transcribe
    - user: root
    - group: root
    - dir_mode: '0755'
    - file_mode: '0644'
    - clean: true
    - exclude_pat: E@__pycache__
    - require:
      - sls: transcribe.layout

{%- for program in ['scripts/api_server.py', 'scripts/fleet_feeder.py', 'scripts/transcribe_optimized.py', 'advanced_cache.py'] %}

code-{{ program.split('/')[-1][:-3] | replace('_', '-') }}:
  file.managed:
    - name: {{ it.root }}/{{ program }}
    - source: salt://service/{{ program.split('/')[-1] }}
    - user: root
    - group: root
    - mode: '0755'
    - require:
      - sls: transcribe.layout
{%- endfor %}

code-compiled:
  cmd.run:
    - name: {{ it.root }}/venv/bin/python -m compileall -q {{ it.root }}/scripts
    - onchanges:
      - file: code-package
      - file: code-api-server
      - file: code-fleet-feeder
      - file: code-transcribe-optimized
    - require:
      - sls: transcribe.venv
