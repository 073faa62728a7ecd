"""`/metrics`: what this server has done and holds, in Prometheus' text format.

With tokens on, `access.py` asks for the right `admin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from starlette.requests import Request
from starlette.responses import Response

from files_server.catalog.totals import Totals, totals
from files_server.leases import Leases
from files_server.meters import Histogram, Meters, meters
from files_server.routes import asking
from files_server.services import Services

router = APIRouter()
_PREFIX = "files_server"


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """One scrape."""
    services = asking.services_of(request)
    text, content_type = await asyncio.to_thread(_text, services)
    return Response(text, media_type=content_type, headers={"Cache-Control": "no-store"})


def _text(services: Services) -> tuple[bytes, str]:
    # Nobody but a scrape needs it, and a server is to start fast.
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

    with services.catalog.snapshot() as connection:
        found = totals(connection)
    families = [*_counted(meters), *_leased(services.leases), *_held(services, found)]
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    ProcessCollector(registry=registry)
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Collected:
    """What prometheus_client takes for a collector."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _counted(counts: Meters) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        f"{_PREFIX}_requests", "Requests that have ended; status 0 was never answered.",
        labels=("operation", "status"),
    )  # fmt: skip
    for (operation, status), number in list(counts.requests.items()):
        requests.add_metric((operation, str(status)), number)
    yield requests
    seconds = HistogramMetricFamily(
        f"{_PREFIX}_request_seconds", "From a request's header to the end of its answer.",
        labels=("operation",),
    )  # fmt: skip
    for operation, histogram in list(counts.seconds.items()):
        seconds.add_metric((operation,), *_cumulative(histogram))
    yield seconds
    for name, value, what in (
        ("received_bytes", counts.received, "Bytes of content that came in."),
        ("sent_bytes", counts.sent, "Bytes of answers, without headers."),
    ):
        yield CounterMetricFamily(f"{_PREFIX}_{name}", what, value=value)
    for name, histogram, what in (
        ("commit_seconds", counts.commit_seconds, "A transaction of the catalog, with its sync."),
        ("commit_mutations", counts.commit_mutations, "Changes that shared one transaction."),
    ):
        family = HistogramMetricFamily(f"{_PREFIX}_{name}", what)
        family.add_metric((), *_cumulative(histogram))
        yield family


def _leased(leases: Leases) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        f"{_PREFIX}_leases", "Files that clients may open unasked.", leases.held
    )
    for name, value, what in (
        ("recalls", leases.recalls, "Clients that a change has waited for."),
        ("recalls_overdue", leases.overdue, "Of these, those that did not confirm in time."),
    ):
        yield CounterMetricFamily(f"{_PREFIX}_{name}", what, value=value)


def _held(services: Services, found: Totals) -> Iterator[Metric]:
    space = services.blobs.space()
    for name, value, what in (
        ("upload_sessions", found.open_sessions, "Upload sessions that are open."),
        ("feed_subscribers", services.changes.subscribers, "Clients that listen for changes."),
        ("files", found.files, "Files."),
        ("used_bytes", found.used_bytes, "Bytes of all files."),
        ("deleted_files", found.deleted_files, "Versions that can be undeleted."),
        ("kept_bytes", found.kept_bytes, "Bytes of deleted and replaced versions."),
        ("blobs", found.blobs, "Contents in files of their own."),
        ("catalog_bytes", found.catalog_bytes, "The catalog, with the small files in it."),
        ("catalog_free_bytes", found.catalog_free_bytes, "What is unused in the catalog."),
        ("disk_bytes", space.total, "The disk of the data folder."),
        ("disk_free_bytes", space.free, "What is free on it."),
    ):
        yield GaugeMetricFamily(f"{_PREFIX}_{name}", what, value=value)


def _cumulative(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    buckets, count = [], 0
    for bound, number in zip(
        [*histogram.bounds, float("inf")], list(histogram.counts), strict=True
    ):
        count += number
        buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(count)))
    return buckets, histogram.total
