"""What an image must not carry: planted on a machine, sealed, looked for. Each test ruins a machine of its own."""

import json

from support.baked_machine import BakedMachine

CANARY = "canary-5f1c"
PLANTED = (
    *("/root/.ssh/authorized_keys", "/root/.ssh/id_ed25519", "/home/person/.ssh/authorized_keys"),
    *("/root/.bash_history", "/root/.python_history", "/home/person/.bash_history"),
    *("/root/.cache/huggingface/token", "/root/.huggingface/token", "/root/.config/pip/pip.conf", "/root/.netrc"),
    *("/root/.aws/credentials", "/home/person/.aws/credentials", "/root/.pypirc", "/root/.git-credentials"),
    *(
        "/var/lib/cloud/instance/user-data.txt",
        "/var/lib/cloud/seed/nocloud/user-data",
        "/etc/sudoers.d/90-cloud-init-users",
    ),
    *("/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/sshd_config.d/50-cloud-init.conf"),
    *("/etc/systemd/system/transcribe-bake.service", "/etc/apt/auth.conf.d/mirror.conf"),
    *("/tmp/parameters.json", "/tmp/.hidden", "/var/tmp/bootstrap.sh", "/var/log/cloud-init-output.log"),
    *("/var/log/journal/x/system.journal", "/var/log/apt/term.log", "/var/lib/apt/lists/mirror_InRelease"),
    *("/var/lib/dhcp/dhclient.leases", "/var/lib/systemd/random-seed", "/var/cache/salt/minion/x"),
    *("/opt/transcribe/results/spoken.txt", "/opt/transcribe/temp/upload", "/opt/transcribe/logs/service.log"),
)
KEPT = ("/opt/transcribe/cache/cache_info.json", "/opt/transcribe/config/transcribe.json", "/etc/salt/minion")
DISKS = "/etc /var /root /home /srv /tmp /opt /usr/local"


def plant(machine: BakedMachine) -> None:
    machine.run("useradd", "--create-home", "--uid=1007", "person")
    for path in PLANTED:
        machine.sh(f"mkdir -p $(dirname {path}); echo {CANARY} >>{path}")


def test_planted_secrets_are_gone_and_the_service_is_whole(own: BakedMachine) -> None:
    own.wait_serving()
    plant(own)
    dry = own.apply("transcribe.seal", "test=True")
    assert "seal-logins" in dry.undecided
    assert own.sh(f"cat {PLANTED[0]}")
    applied = own.apply("transcribe.seal")
    assert applied.failed == {}
    assert own.sh(f"grep -rl {CANARY} {DISKS} || true") == ""
    assert own.sh("find /etc/ssh -name 'ssh_host_*'") == ""
    assert own.run("stat", "--format=%s", "/etc/machine-id").stdout.strip() == "0"
    assert own.sh(f"ls {' '.join(KEPT)} && ls /opt/transcribe/models/*/snapshots/*/model.safetensors")
    own.run("systemctl", "start", "transcribe-api", "transcribe-worker")
    own.wait_serving()
    assert own.apply().failed == {}


def test_seal_fails_if_a_secret_of_the_bake_is_left(own: BakedMachine) -> None:
    parameters = {"nonce": CANARY, "addresses_url": "http://x/?X"}
    own.sh("mkdir -p /run/transcribe-bake")
    own.run("tee", "/run/transcribe-bake/parameters.json", text=json.dumps(parameters))
    own.sh(f"echo prefix-{CANARY}-suffix >/etc/forgotten")
    applied = own.apply("transcribe.seal")
    assert list(applied.failed) == ["seal-asserted"]
    assert "/etc/forgotten" in applied.failed["seal-asserted"]


def test_highstate_never_seals(machine: BakedMachine) -> None:
    assert [name for name in machine.apply().states if name.startswith("seal")] == []
