# Tuning: model read-ahead at boot, no background apt, bounded logs.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout

tuning-transcribe-warm-unit:
  file.managed:
    - name: /etc/systemd/system/transcribe-warm.service
    - source: salt://transcribe/files/transcribe-warm.service
    - template: jinja
    - user: root
    - group: root
    - mode: '0644'

tuning-transcribe-warm-enabled:
  service.enabled:
    - name: transcribe-warm
    - require:
      - file: tuning-transcribe-warm-unit

tuning-transcribe-warm-started:
  cmd.run:
    - name: systemctl daemon-reload && systemctl restart --no-block transcribe-warm
    - onchanges:
      - file: tuning-transcribe-warm-unit

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
