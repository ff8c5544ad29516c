"""The emulated price list and service quotas: what an instance costs here, and how many an account may have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator

from elias.testing.emulated import Json
from elias.testing.sagemaker_emulator.answers import CallError
from elias.testing.sagemaker_emulator.bill import cost_and_usage
from elias.testing.sagemaker_emulator.disk import Disk
from elias.testing.sagemaker_emulator.validation import model

PRICES = {
    "ml.g4dn.xlarge": "0.7364",
    "ml.g4dn.2xlarge": "0.94",
    "ml.g4dn.12xlarge": "4.89",
    "ml.g5.xlarge": "1.408",
    "ml.g5.2xlarge": "1.515",
    "ml.g5.12xlarge": "7.09",
    "ml.g5.48xlarge": "20.36",
    "ml.g6.xlarge": "1.127",
    "ml.g6.2xlarge": "1.222",
    "ml.g6.12xlarge": "5.752",
    "ml.g6e.xlarge": "2.61",
    "ml.g6e.2xlarge": "2.80",
    "ml.g6e.12xlarge": "13.12",
    "ml.p3.2xlarge": "3.825",
    "ml.p4d.24xlarge": "25.25",
    "ml.p4de.24xlarge": "31.56",
    "ml.p5.4xlarge": "7.912",
    "ml.p5.48xlarge": "63.296",
    "ml.g7e.2xlarge": "4.2039",
}
"""USD an hour of training, on demand, us-east-1, as read between 2026-06 and 2026-09-27."""
PRICE_LIST_REGIONS = ("us-east-1", "eu-central-1", "ap-south-1")
"""Where AWS answers for the price list; there is no endpoint elsewhere."""
KNOWN_CODES = {"ml.g5.2xlarge:spot": "L-CAEE7DB7", "ml.g5.2xlarge": "L-2D6DEB3C"}
"""AWS's own quota codes, as far as they are known; the others are made up here and say so."""
MATCHES: dict[str, Callable[[str, str], bool]] = {
    "TERM_MATCH": lambda have, want: have == want,
    "EQUALS": lambda have, want: have == want,
    "CONTAINS": lambda have, want: want in have,
    "ANY_OF": lambda have, want: have in want.split(","),
    "NONE_OF": lambda have, want: have not in want.split(","),
}


class Catalog:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def get_products(self, body: Json, region: str) -> Json:
        if region not in PRICE_LIST_REGIONS:
            raise CallError("UnrecognizedClientException", f"emulated: the price list has no endpoint in {region}")
        if body["ServiceCode"] != "AmazonSageMaker":
            raise CallError("NotFoundException", f"emulated: no prices of {body['ServiceCode']}")
        prices = PRICES | self._disk.settings.prices
        products = [_product(kind, price) for kind, price in sorted(prices.items())]
        found = [p for p in products if _matches(p["product"]["attributes"], body.get("Filters", []))]
        page, token = paged(found, body, 100)
        return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(p) for p in page]} | token

    def get_service_quota(self, body: Json, region: str) -> Json:
        for quota in self._quotas(body, region):
            if quota["QuotaCode"] == body["QuotaCode"]:
                return {"Quota": quota}
        raise CallError("NoSuchResourceException", f"emulated: no quota {body['QuotaCode']} of {body['ServiceCode']}")

    def list_service_quotas(self, body: Json, region: str) -> Json:
        wanted = body.get("QuotaCode")
        found = [quota for quota in self._quotas(body, region) if wanted in (None, quota["QuotaCode"])]
        page, token = paged(found, body, 100)
        return {"Quotas": page} | token

    def get_cost_and_usage(self, body: Json, region: str) -> Json:
        """Daily, by one tag, of one tag's value: what ended jobs were billed on the day of their end."""
        prices = PRICES | self._disk.settings.prices
        return cost_and_usage(body, [record for _, record in self._disk.jobs()], prices)

    def allowed(self, instance: str, *, spot: bool) -> int:
        """Instances of a type that may train at once."""
        settings = self._disk.settings
        return settings.quotas.get(quota_key(instance, spot=spot), settings.default_quota)

    def _quotas(self, body: Json, region: str) -> Iterator[Json]:
        if body["ServiceCode"] != "sagemaker":
            raise CallError("NoSuchResourceException", f"emulated: no quotas of {body['ServiceCode']}")
        for instance in model("SageMaker").shape_for("TrainingInstanceType").enum:
            for spot in (False, True):
                code = quota_code(instance, spot=spot)
                yield {
                    "ServiceCode": "sagemaker",
                    "ServiceName": "Amazon SageMaker",
                    "QuotaArn": f"arn:aws:servicequotas:{region}:123456789012:sagemaker/{code}",
                    "QuotaCode": code,
                    "QuotaName": quota_name(instance, spot=spot),
                    "Value": float(self.allowed(instance, spot=spot)),
                    "Unit": "None",
                    "Adjustable": True,
                    "GlobalQuota": False,
                }


def quota_name(instance: str, *, spot: bool) -> str:
    return f"{instance} for {'spot ' if spot else ''}training job usage"


def quota_key(instance: str, *, spot: bool) -> str:
    """The instance's name in `Settings.quotas`."""
    return f"{instance}:spot" if spot else instance


def quota_code(instance: str, *, spot: bool) -> str:
    key = quota_key(instance, spot=spot)
    return KNOWN_CODES.get(key) or f"L-EMULATED-{hashlib.sha256(key.encode()).hexdigest()[:8].upper()}"


def paged(found: list[Json], body: Json, page_size: int) -> tuple[list[Json], Json]:
    """One page, and the `NextToken` of the next one where there is one."""
    first = int(body.get("NextToken") or 0)
    last = first + int(body.get("MaxResults") or page_size)
    return found[first:last], {"NextToken": str(last)} if last < len(found) else {}


def _matches(attributes: Json, filters: list[Json]) -> bool:
    return all(MATCHES[f["Type"]](str(attributes.get(f["Field"], "")), f["Value"]) for f in filters)


def _product(instance: str, usd: str) -> Json:
    """In the price list's own form, version aws_v1."""
    sku = hashlib.sha256(f"emulated {instance}".encode()).hexdigest()[:16].upper()
    term, rate = f"{sku}.JRTCKXETXF", f"{sku}.JRTCKXETXF.6YS6EN2CT7"
    dimension = {
        "unit": "Hrs",
        "endRange": "Inf",
        "beginRange": "0",
        "description": f"${usd} per Training {instance} hour in US East (N. Virginia) (emulated)",
        "appliesTo": [],
        "rateCode": rate,
        "pricePerUnit": {"USD": usd},
    }
    attributes = {
        "servicecode": "AmazonSageMaker",
        "servicename": "Amazon SageMaker",
        "instanceName": instance,
        "component": "Training",
        "usagetype": f"USE1-Train:{instance}",
        "operation": "",
        "location": "US East (N. Virginia)",
        "locationType": "AWS Region",
        "regionCode": "us-east-1",
    }
    offer = {"sku": sku, "offerTermCode": "JRTCKXETXF", "termAttributes": {}, "priceDimensions": {rate: dimension}}
    return {
        "product": {"productFamily": "ML Instance", "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonSageMaker",
        "terms": {"OnDemand": {term: offer}},
        "version": "emulated",
        "publicationDate": "2026-09-27T00:00:00Z",
    }
