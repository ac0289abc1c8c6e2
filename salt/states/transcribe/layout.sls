# The service's account and folders. It may write to three of them and to nothing else.
{%- set it = pillar['transcribe'] %}
{%- set person = salt['user.info'](it.user).get('uid', 0) >= 1000 %}

layout-group:
  group.present:
    - name: {{ it.group }}
    - system: true

layout-user:
  user.present:
    - name: {{ it.user }}
    {%- if person %}
    - remove_groups: false  # a person's account, as ubuntu is, keeps its groups, shell and home
    {%- else %}
    - system: true
    - gid: {{ it.group }}
    - home: {{ it.root }}
    - createhome: false
    - shell: /usr/sbin/nologin
    {%- endif %}
    - require:
      - group: layout-group

layout-root:
  file.directory:
    - name: {{ it.root }}
    - user: root
    - group: root
    - mode: '0755'

{%- for folder in ['venv', 'models', 'scripts'] %}

layout-{{ folder }}:
  file.directory:
    - name: {{ it.root }}/{{ folder }}
    - user: root
    - group: root
    - mode: '0755'
    - require:
      - file: layout-root
{%- endfor %}

{%- for folder in ['config', 'cache'] %}

layout-{{ folder }}:
  file.directory:
    - name: {{ it.root }}/{{ folder }}
    - user: root
    - group: {{ it.group }}
    - mode: '0750'
    - require:
      - file: layout-root
      - group: layout-group
{%- endfor %}

{%- set shared = ['temp', 'results'] if it.fleet.queue else [] %}  {#- with the feeder, by their group #}

{%- for folder in ['temp', 'logs', 'results'] %}

layout-{{ folder }}:
  file.directory:
    - name: {{ it.root }}/{{ folder }}
    - user: {{ it.user }}
    - group: {{ it.group }}
    - mode: '{{ '0770' if folder in shared else '0750' }}'
    - require:
      - file: layout-root
      - user: layout-user
{%- endfor %}

layout-salt-minion:
  file.managed:
    - name: /etc/salt/minion
    - source: salt://salt/minion
    - makedirs: true
    - user: root
    - group: root
    - mode: '0644'

layout-salt-call:
  file.symlink:
    - name: /usr/local/bin/salt-call
    - target: /opt/salt/venv/bin/salt-call
