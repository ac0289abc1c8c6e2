# Removes what an image must not contain, at the end of a bake; in no highstate. The list is files/seal.yaml.
{%- set it = pillar['transcribe'] %}
{%- import_yaml 'transcribe/files/seal.yaml' as seal %}

{%- for unit in ['transcribe-feeder', 'transcribe-api', 'transcribe-worker', 'transcribe-warm', 'cron', 'syslog.socket',
                 'rsyslog'] %}

seal-stop-{{ unit }}:
  service.dead:
    - name: {{ unit }}
    - require_in:
      - cmd: seal-journal-volatile
{%- endfor %}

# Stopping this unit stores a random seed, which would otherwise happen at power-off, after the seal.
seal-stop-random-seed:
  cmd.run:
    - name: systemctl stop systemd-random-seed.service
    - require_in:
      - cmd: seal-journal-volatile

seal-journal-volatile:
  cmd.run:
    - name: journalctl --rotate --relinquish-var

{%- for what, paths in seal.gone.items() %}

seal-{{ what }}:
  transcribe_seal.gone:
    - paths: {{ paths | json }}
    - root: {{ it.root }}
    - require:
      - cmd: seal-journal-volatile
    - require_in:
      - transcribe_seal: seal-asserted
{%- endfor %}

seal-emptied:
  transcribe_seal.emptied:
    - paths: {{ seal.emptied | json }}
    - require:
      - cmd: seal-journal-volatile

seal-asserted:
  transcribe_seal.asserted:
    - paths: {{ seal.gone.values() | sum(start=[]) | json }}
    - empty: {{ seal.emptied | json }}
    - root: {{ it.root }}
    - require:
      - transcribe_seal: seal-emptied
