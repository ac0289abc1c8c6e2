# Tuning: model read-ahead at boot, no background apt, bounded logs, and the GPU where there is one.
{%- set it = pillar['transcribe'] %}
{%- set units = ['transcribe-warm'] + (['transcribe-gpu'] if salt['transcribe.gpu']() else []) %}

include:
  - transcribe.layout

{%- for unit in units %}

tuning-{{ unit }}-unit:
  file.managed:
    - name: /etc/systemd/system/{{ unit }}.service
    - source: salt://transcribe/files/{{ unit }}.service
    - template: jinja
    - user: root
    - group: root
    - mode: '0644'

tuning-{{ unit }}-enabled:
  service.enabled:
    - name: {{ unit }}
    - require:
      - file: tuning-{{ unit }}-unit

tuning-{{ unit }}-started:
  cmd.run:
    - name: systemctl daemon-reload && systemctl restart --no-block {{ unit }}
    - onchanges:
      - file: tuning-{{ unit }}-unit
{%- endfor %}

tuning-journal:
  file.managed:
    - name: /etc/systemd/journald.conf.d/transcribe.conf
    - source: salt://transcribe/files/journald.conf
    - makedirs: true
    - user: root
    - group: root
    - mode: '0644'

tuning-journal-restarted:
  cmd.run:
    - name: systemctl restart systemd-journald
    - onchanges:
      - file: tuning-journal

tuning-logs:
  file.managed:
    - name: /etc/tmpfiles.d/transcribe.conf
    - contents: e {{ it.root }}/logs - - - 14d  # older files are deleted
    - user: root
    - group: root
    - mode: '0644'

# An image is replaced, never upgraded while it serves. Masked by symlink: service.masked runs systemctl ten times.
{%- for timer in ['apt-daily', 'apt-daily-upgrade'] %}

tuning-{{ timer }}-masked:
  file.symlink:
    - name: /etc/systemd/system/{{ timer }}.timer
    - target: /dev/null
    - force: true
{%- endfor %}

tuning-apt-stopped:
  cmd.run:
    - name: systemctl stop apt-daily.timer apt-daily-upgrade.timer && systemctl daemon-reload
    - onchanges:
      - file: tuning-apt-daily-masked
      - file: tuning-apt-daily-upgrade-masked

{%- for package in salt['transcribe.drivers']() %}

tuning-{{ package }}-held:
  pkg.held:
    - name: {{ package }}
{%- endfor %}
