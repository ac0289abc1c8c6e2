"""What a real account has and moto's has not: a way out of its subnets, quotas, roles of services, a disk key.

And what an owner makes before a fleet: the instance profile of its machines.
"""

from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend

from localcloud.aws.moto_images import ACCOUNT

PROFILE = "transcribe-fleet"  # an instance profile, and its role

ROLES = ("AWSServiceRoleForAutoScaling", "AWSServiceRoleForElasticLoadBalancing", "AWSServiceRoleForEC2Spot")
# vCPUs of G and of standard machines, on-demand and spot; TiB of gp3; images.
USUAL = {
    ("ec2", "L-DB2E81BA"): 64.0, ("ec2", "L-3819A6DF"): 64.0, ("ec2", "L-1216C47A"): 64.0, ("ec2", "L-34B43A08"): 64.0,
    ("ebs", "L-7A658B76"): 50.0, ("ec2", "L-B665C33B"): 50_000.0,
}  # fmt: skip
quotas = dict(USUAL)
disk_key = "alias/aws/ebs"  # encrypts disks for which no other is named


def furnish(region: str) -> None:
    """Give moto's account in a region what it lacks; what is there already stays."""
    ServiceQuotasBackend.get_service_quota = _quota
    quotas.update(USUAL)
    ec2: Any = ec2_backends[ACCOUNT][region]
    for vpc in list(ec2.vpcs.values()):
        if not any(gateway.vpc and gateway.vpc.id == vpc.id for gateway in ec2.internet_gateways.values()):
            gateway = ec2.create_internet_gateway()
            ec2.attach_internet_gateway(gateway.id, vpc.id)
            for table in [table for table in ec2.route_tables.values() if table.vpc_id == vpc.id]:
                ec2.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)
    iam: Any = iam_backends[ACCOUNT]["aws"]
    there = {role.name for role in iam.roles.values()}
    for name in ROLES:
        if name not in there:
            iam.create_role(name, "{}", "/aws-service-role/", None, "", [], 3600)
    if PROFILE not in there:
        iam.create_role(PROFILE, "{}", "/", None, "", [], 3600)
        iam.create_instance_profile(PROFILE, "/", [PROFILE])


def _quota(_backend: ServiceQuotasBackend, service_code: str, quota_code: str) -> dict[str, Any]:
    if (service_code, quota_code) not in quotas:
        raise NoSuchResource
    return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": quotas[service_code, quota_code]}
