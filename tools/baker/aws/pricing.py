"""What a bake may cost at most: deadline × price, from the configuration or else AWS' price list."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from baker.aws.client import Clients, aws_errors
from baker.config import LauncherConfig
from baker.errors import AwsError

MACHINES = 2  # of a bake: one that bakes, one that verifies; never both at once
SERVICE = "AmazonEC2"


class Prices:
    """On-demand prices of Linux machines in one region, which spot machines never exceed."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def hourly(self, config: LauncherConfig) -> dict[str, float | None]:
        """US dollars an hour by instance type; None where neither configuration nor AWS can tell."""
        return {
            kind: config.prices[kind] if kind in config.prices else self._listed(config.aws.region, kind)
            for kind in config.instance.types
        }

    def _listed(self, region: str, kind: str) -> float | None:
        wanted = {
            "instanceType": kind, "regionCode": region, "operatingSystem": "Linux", "preInstalledSw": "NA",
            "tenancy": "Shared", "capacitystatus": "Used",
        }  # fmt: skip
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
        try:
            with aws_errors("GetProducts"):
                found = self._clients.pricing.get_products(ServiceCode=SERVICE, Filters=filters, MaxResults=1)
        except AwsError:  # a plan is good without it
            return None
        return next((price for product in found["PriceList"] for price in on_demand(json.loads(product))), None)


def on_demand(product: Mapping[str, Any]) -> Iterable[float]:
    """The hourly prices in one entry of AWS' price list."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            if dimension["unit"] == "Hrs":
                yield float(dimension["pricePerUnit"]["USD"])


def bound(config: LauncherConfig, hourly: Mapping[str, float | None], attempts: int) -> str:
    """The most that the machines of a bake can cost, for a person; their disks come to some cents beside it."""
    known = [price for price in hourly.values() if price is not None]
    if len(known) < len(hourly):
        lacking = ", ".join(kind for kind, price in hourly.items() if price is None)
        return f"not known: AWS' price list does not tell for {lacking}; set [prices]"
    usual = MACHINES * max(known) * config.bake.deadline_minutes / 60
    replaced = f"${usual * attempts:.2f} if AWS takes each away {attempts - 1} times"
    return f"${usual:.2f} for two machines to their deadlines; {replaced}"
