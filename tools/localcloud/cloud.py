"""Carries out the EC2 API's calls: keeps moto's records, the machines and the images on disk in step."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from localcloud.aws.moto_instances import MotoRegion
from localcloud.aws.query_protocol import Ec2Error
from localcloud.aws.steward.steward import Steward
from localcloud.machines import base_image, guest
from localcloud.machines.disk_images import DiskImage, DiskImages
from localcloud.machines.machines import LaunchRequest, LocalMachines
from localcloud.machines.port_forward import Forwarder

from .common import Folders, LocalCloudError
from .metadata import Metadata
from .roles import RoleSessions

POWER_OFF_SECONDS = 120.0


class Backend:
    """Implements the EC2 layer's `Ec2Actions`, and what the control API offers besides."""

    def __init__(self, folders: Folders, moto: MotoRegion, clock: Callable[[], float] = time.time) -> None:
        self.moto = moto
        self.steward = Steward(moto.region, clock)
        self.images = DiskImages(folders)
        self.machines = LocalMachines(folders, self._went_off)
        self.metadata = Metadata(moto.region, RoleSessions(), self.steward.metadata)
        self._imaging: set[str] = set()
        self._forwarders: dict[tuple[str, int], Forwarder] = {}
        self._lock = threading.RLock()
        self._reconciling = threading.Lock()
        for base in base_image.BASES:
            moto.add_source(self.images.source(base), base)
        for image in self.images.all():
            moto.restore(image)

    # --- the EC2 API

    def may_run(self, image_id: str) -> None:
        try:
            self.images.get(image_id)
        except LocalCloudError:
            raise Ec2Error("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist") from None
        if os.geteuid() != 0:
            raise Ec2Error("UnauthorizedOperation", "machines of the local cloud need root: run with sudo")

    def launched(self, instance_ids: list[str], image_id: str, user_data: bytes) -> None:
        disk = self.images.disk(self.images.get(image_id))
        for instance_id in instance_ids:
            role = self.moto.role(instance_id)
            wanted = LaunchRequest(id=instance_id, disk=disk, user_data=user_data, has_role=bool(role))
            try:
                machine = self.machines.launch(wanted)
                if role:
                    self.metadata.serve(instance_id, role, machine.metadata_socket)
            except (LocalCloudError, OSError) as error:
                self.moto.set_state(instance_id, "terminated", code="Server.InternalError", reason=str(error))

    def stop(self, instance_ids: list[str], *, force: bool) -> None:
        for instance_id in instance_ids:
            machine = self.machines.get(instance_id)
            if machine.running:
                self.moto.set_state(instance_id, "stopping")
                machine.kill() if force else machine.send("poweroff")

    def start(self, instance_ids: list[str]) -> None:
        for instance_id in instance_ids:
            if not self.machines.get(instance_id).running:
                self.machines.start(instance_id)

    def reboot(self, instance_ids: list[str]) -> None:
        for instance_id in instance_ids:
            guest.reboot(self.machines.get(instance_id).leader())

    def terminate(self, instance_ids: list[str]) -> None:
        for instance_id in instance_ids:
            self._end(instance_id)

    def terminated(self, instance_id: str) -> bool:
        return self.moto.state(instance_id) == "terminated"

    def reconcile(self) -> None:
        """Boot and end machines where Auto Scaling has started and ended instances."""
        with self._reconciling:
            for started in self.moto.started(without=self.machines.known()):
                self.launched([started.id], started.image_id, started.user_data)
            for machine_id in self.machines.running():
                if not self.machines.get(machine_id).launch.owner and self.terminated(machine_id):
                    self._end(machine_id)

    def tick(self) -> None:
        """What AWS does by itself."""
        for machine_id in self.steward.taken():
            if not self.terminated(machine_id):
                self.interrupt_spot(machine_id)
        self.steward.tick()
        self.reconcile()

    def console(self, instance_id: str) -> bytes:
        return self.machines.get(instance_id).console()

    def may_image(self, instance_id: str, name: str) -> None:
        if self.moto.has_image_named(name):
            raise Ec2Error("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by another image")
        if self.moto.state(instance_id) not in ("running", "stopped"):
            raise Ec2Error("IncorrectState", f"The instance '{instance_id}' is neither running nor stopped")

    def imaged(self, instance_id: str, image_id: str, *, no_reboot: bool, snapshot_tags: Mapping[str, str]) -> None:
        machine = self.machines.get(instance_id)
        below, was_running = machine.disk, machine.running
        on = was_running and no_reboot
        layer = machine.copy_disk(self.images.copy) if on else self._image_off(instance_id)
        self.moto.finish_image(image_id, snapshot_tags)
        layers = (layer.name, *(path.name for path in below[:-1]))
        self.images.add(DiskImage(image_id, root=below[-1].name, layers=layers, facts=self.moto.facts(image_id)))
        if was_running and not on:
            self.machines.start(instance_id)

    def _image_off(self, instance_id: str) -> Path:
        """Power a machine off and turn what it has written into a layer; the caller starts it again."""
        machine = self.machines.get(instance_id)
        self._imaging.add(instance_id)
        try:
            if machine.running:
                machine.send("poweroff")
                if not machine.settled.wait(POWER_OFF_SECONDS):
                    raise Ec2Error("InternalError", f"the machine did not power off in {POWER_OFF_SECONDS:.0f} s")
            return self.machines.freeze(instance_id, self.images.freeze)
        finally:
            self._imaging.discard(instance_id)

    def copied(self, source_id: str, image_id: str) -> None:
        source = self.images.get(source_id)
        self.moto.finish_image(image_id, {})
        self.images.add(DiskImage(image_id, root=source.root, layers=source.layers, facts=self.moto.facts(image_id)))

    def deregistered(self, image_id: str) -> None:
        self.images.remove(image_id)
        self.images.collect(self.machines.disks())

    def changed(self) -> None:
        for image in self.images.all():
            self.images.describe(image.id, self.moto.facts(image.id))

    def interrupt_spot(self, machine_id: str) -> None:
        """End a spot instance as AWS does when it needs the capacity."""
        code = "Server.SpotInstanceTermination"
        self.moto.set_state(machine_id, "terminated", code=code, reason="Instance terminated by Spot")
        self._end(machine_id)

    # --- the control API

    def boot(self, image_id: str, *, owner: int) -> str:
        """Boot an image with cloud-init disabled, for a command; the machine ends when the process `owner` ends."""
        self.may_run(image_id)
        machine_id = f"i-{secrets.token_hex(8)}0"
        disk = self.images.disk(self.images.get(image_id))
        self.machines.launch(LaunchRequest(id=machine_id, disk=disk, owner=owner))
        return machine_id

    def url_of(self, machine_id: str, port: int) -> str:
        """Where this host reaches a port that a machine serves on its own loopback."""
        with self._lock:
            if (machine_id, port) not in self._forwarders:
                leader = self.machines.get(machine_id).leader()
                self._forwarders[machine_id, port] = Forwarder(leader=leader, port=port)
            return self._forwarders[machine_id, port].url

    def sweep(self) -> None:
        """Delete what a killed local cloud has left on disk."""
        self.machines.sweep()
        self.images.collect(())

    def close(self) -> None:
        self.machines.close()

    # --- what happens when a machine goes off

    def _went_off(self, machine_id: str, clean: bool) -> None:
        self._close_forwarders(machine_id)
        state = self.moto.state(machine_id)
        if machine_id in self._imaging:
            return
        if state == "stopping":
            self.moto.set_state(machine_id, "stopped")
        elif state == "running":
            code, reason = "Client.InstanceInitiatedShutdown", "Instance initiated shutdown"
            if not clean:
                code, reason = "Server.InternalError", f"the machine failed{self.machines.get(machine_id).trouble()}"
            ends = self.moto.ends_on_shutdown(machine_id) or not clean
            self.moto.set_state(machine_id, "terminated" if ends else "stopped", code=code, reason=reason)
            if ends:
                self._end(machine_id)
        elif self.machines.get(machine_id).launch.owner:
            self._end(machine_id)

    def _end(self, machine_id: str) -> None:
        self._close_forwarders(machine_id)
        self.metadata.end(machine_id)
        self.machines.terminate(machine_id)
        self.images.collect(self.machines.disks())

    def _close_forwarders(self, machine_id: str) -> None:
        with self._lock:
            for known in [known for known in self._forwarders if known[0] == machine_id]:
                self._forwarders.pop(known).close()
