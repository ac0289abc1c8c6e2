# The processes, started again whenever something that they run on has changed. The feeder is a fleet's.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout
  - transcribe.packages
  - transcribe.venv
  - transcribe.code
  - transcribe.config
  - transcribe.model

{%- for unit in ['worker', 'api', 'feeder'] if unit != 'feeder' or it.fleet.queue %}

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

{%- if it.fleet.queue %}

service-feeder-user:
  user.present:
    - name: {{ it.fleet.user }}
    - system: true
    - gid: {{ it.group }}
    - home: {{ it.root }}
    - createhome: false
    - shell: /usr/sbin/nologin
    - require:
      - sls: transcribe.layout

# The folder of the feeder's socket is there before the worker starts, which must not see what is in it.
service-feeder-folder:
  file.managed:
    - name: /etc/tmpfiles.d/transcribe-feeder.conf
    - contents: d {{ it.fleet.socket.rsplit('/', 1)[0] }} 0750 {{ it.fleet.user }} {{ it.group }} -
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - user: service-feeder-user

service-feeder-folder-made:
  cmd.run:
    - name: systemd-tmpfiles --create /etc/tmpfiles.d/transcribe-feeder.conf
    - onchanges:
      - file: service-feeder-folder
    - require_in:
      - service: service-worker-running
      - service: service-feeder-running
{%- else %}

# The machine has left its fleet, or has never been in one.
service-feeder-stopped:
  service.dead:
    - name: transcribe-feeder
    - enable: false
    - onlyif: test -e /etc/systemd/system/transcribe-feeder.service  # a dry run takes a missing one for a change
    - require_in: [file: service-feeder-absent]

service-feeder-absent:
  file.absent:
    - names: [/etc/systemd/system/transcribe-feeder.service, /etc/tmpfiles.d/transcribe-feeder.conf]

service-feeder-forgotten:
  cmd.run:
    - name: systemctl daemon-reload
    - onchanges: [file: service-feeder-absent]
{%- endif %}
