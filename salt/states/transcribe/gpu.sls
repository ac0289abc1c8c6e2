# The GPU's driver and device nodes, before anything runs on it. On a machine without a GPU the unit does nothing, so
# that the states are the same whatever the machine is, and whatever the driver has made of it so far.
{%- set it = pillar['transcribe'] %}

include:
  - transcribe.layout

gpu-program:
  file.managed:
    - name: {{ it.root }}/scripts/prepare-gpu.sh
    - source: salt://transcribe/files/prepare-gpu.sh
    - user: root
    - group: root
    - mode: '0755'
    - require:
      - sls: transcribe.layout

gpu-unit:
  file.managed:
    - name: /etc/systemd/system/transcribe-gpu.service
    - source: salt://transcribe/files/transcribe-gpu.service
    - template: jinja
    - user: root
    - group: root
    - mode: '0644'

gpu-enabled:
  service.enabled:
    - name: transcribe-gpu
    - require:
      - file: gpu-unit

# The driver and the kernel only work together in these versions: an image is replaced, never upgraded.
{%- for package in salt['transcribe_gpu.drivers']() %}

gpu-{{ package }}-held:
  pkg.held:
    - name: {{ package }}
{%- endfor %}

gpu-prepared:
  transcribe_gpu.prepared:
    - name: transcribe-gpu
    - require:
      - file: gpu-program
      - service: gpu-enabled
    - watch:
      - file: gpu-program
      - file: gpu-unit
