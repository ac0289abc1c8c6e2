# Debian packages. Nothing is refreshed or downloaded when all of them are installed.
{%- set it = pillar['transcribe'] %}

# First of all, since what is installed needs the room.
{%- for toolkit in it.install.remove_toolkits if toolkit.startswith('cuda-') and '/' not in toolkit %}

packages-no-{{ toolkit }}:
  file.absent:
    - name: /usr/local/{{ toolkit }}
    - order: first
{%- endfor %}

packages-lock-wait:
  file.managed:
    - name: /etc/apt/apt.conf.d/90transcribe
    - contents: DPkg::Lock::Timeout "300";  # cloud-init and apt's own timers want the lock as well
    - user: root
    - group: root
    - mode: '0644'

packages-python:
  pkg.installed:
    - pkgs:
      - ca-certificates
      - python3-venv
    - install_recommends: false
    - require:
      - file: packages-lock-wait

# Two hundred packages, installed in parallel with the virtual environment.
packages-media:
  pkg.installed:
    - pkgs:
      - ffmpeg
    - install_recommends: false
    - parallel: true
    - require:
      - pkg: packages-python
