"""What ``/metrics`` says: the table of metrics, how the workers' figures become one, and how that is written down.

The names follow Prometheus: one word before all, base units, ``_total`` behind what only grows. No label has values that
anybody outside can make up: no key, no account, no address, no path.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec

PREFIX: Final = "keywright_"
#: Upper bounds of the histogram of durations, in seconds.
BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
#: A worker that has not written for so long is not counted as alive, in seconds.
SILENT: Final = 5.0

#: A name without its prefix and ``_total``, the labels' values, and the value.
Figure = tuple[str, tuple[str, ...], float]
Labelled = dict[tuple[str, ...], float]


class Metric(NamedTuple):
    """One metric: its name, its labels, what it means, and how the workers' figures become one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    says: str
    merge: Callable[[Iterable[float]], float] = sum


METRICS: Final = (
    Metric("verifications", "counter", ("keyspace", "code"), "Verdicts given, metered ones."),
    Metric(
        "verification_duration_seconds",
        "histogram",
        ("door",),
        "How long the server took for a verification, from its head to its answer; every 16th is measured.",
    ),
    Metric("quota_denied", "counter", ("keyspace",), "Verdicts quota_exhausted and rate_limited."),
    Metric(
        "turned_away",
        "counter",
        ("keyspace", "code"),
        "Requests that a gate refused before any verification: gateway_misconfigured, ambiguous_path.",
    ),
    Metric("stale_served", "counter", (), "Verifications answered from memory while the store was gone."),
    Metric("cache_entries", "gauge", (), "Keys remembered, by all workers together."),
    Metric(
        "cache_requests",
        "counter",
        ("result",),
        "hit: a proven key was in memory; miss: the store was asked for a key.",
    ),
    Metric("store_available", "gauge", ("store",), "1 where every worker's last try was answered.", min),
    Metric("store_errors", "counter", ("store",), "Times that a store did not answer."),
    Metric("store_writers_waiting", "gauge", (), "Writers that queue for SQLite's one lock."),
    Metric("store_writes", "counter", (), "Times that SQLite's lock was taken by a writer."),
    Metric("store_write_wait_seconds", "counter", (), "How long those writers queued, together."),
    Metric(
        "freshness_age_seconds",
        "gauge",
        (),
        "How long ago the keys' store last answered, at the worker for which that is longest.",
        max,
    ),
    Metric("usage_queue_events", "gauge", (), "Verdicts counted that the store does not have yet."),
    Metric("refusals_dropped", "counter", (), "Refusals left out of the refusal log, in a flood."),
    Metric(
        "throttled_failures",
        "counter",
        (),
        "Credentials not proven, of sources that had failed too often.",
    ),
    Metric(
        "throttled_sources",
        "gauge",
        (),
        "Sources that have failed too often, as each worker has seen them.",
    ),
    Metric("management_requests", "counter", ("status",), "Requests to the management API: 2xx, 4xx, 5xx."),
    Metric(
        "provider_sign_ins",
        "counter",
        ("result",),
        "Sign-ins by the identity provider: begun, in, refused, astray (what came back was not believed), unavailable.",
    ),
    Metric("workers", "gauge", (), "Workers that are alive."),
    Metric("workers_wanted", "gauge", (), "Workers that there should be.", max),
    Metric("worker_starts", "counter", (), "Workers started; above workers_wanted, some have died."),
    Metric("resident_memory_bytes", "gauge", (), "Memory of all workers; what they share is in each."),
    Metric("cpu_seconds", "counter", (), "Processor time of all workers."),
    Metric(
        "clock_steps",
        "counter",
        (),
        "Times that a worker saw the machine's clock set, by more than 5 seconds.",
    ),
    Metric(
        "clock_ahead_seconds",
        "gauge",
        (),
        "How far the worker that is most ahead of its machine's clock is so.",
        max,
    ),
    Metric("audit_chain_head", "gauge", (), "The number of the newest audit entry; it never falls.", max),
    Metric("build_info", "gauge", ("version", "python", "database"), "1; what is running.", max),
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}


def written_name(metric: Metric) -> str:
    """The name as it stands on the page."""
    return f"{PREFIX}{metric.name}{'_total' if metric.kind == 'counter' else ''}"


class Said(msgspec.Struct):
    """What a worker says of itself: when, by the machine's monotonic clock, and its figures."""

    at: float
    figures: list[Figure]


def grows(name: str) -> bool:
    """Whether a figure only grows, so that a successor goes on from it."""
    return BY_NAME[name.partition(":")[0]].kind != "gauge"


def merged(said: Iterable[Said], now: float) -> dict[str, Labelled]:
    """The figures of all workers as one: what grows counts even after its worker has died, the rest only of the living."""
    found: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for one in said:
        alive = now - one.at < SILENT
        for name, labels, value in one.figures:
            if alive or grows(name):
                found.setdefault(name, {}).setdefault(labels, []).append(value)
    return {
        name: {labels: BY_NAME[name.partition(":")[0]].merge(values) for labels, values in each.items()}
        for name, each in found.items()
    }


def page(figures: dict[str, Labelled]) -> tuple[bytes, bytes]:
    """The content type and the text of the page, in Prometheus' own format."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # noqa: PLC0415  # 30 ms

    class Once:
        def collect(self) -> Iterator[Any]:
            return _families(figures)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    return CONTENT_TYPE_LATEST.encode(), generate_latest(registry)


def _families(figures: dict[str, Labelled]) -> Iterator[Any]:
    from prometheus_client import core  # noqa: PLC0415  # likewise

    kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
    for metric in METRICS:
        if metric.kind == "histogram":
            yield _histogram(core, metric, figures)
            continue
        family = kinds[metric.kind](PREFIX + metric.name, metric.says, labels=metric.labels)
        for labels, value in sorted(figures.get(metric.name, {}).items()):
            family.add_metric(labels, value)
        yield family


def _histogram(core: Any, metric: Metric, figures: dict[str, Labelled]) -> Any:
    family = core.HistogramMetricFamily(PREFIX + metric.name, metric.says, labels=metric.labels)
    sums, counts = figures.get(f"{metric.name}:sum", {}), figures.get(f"{metric.name}:count", {})
    for labels, total in sorted(sums.items()):
        within, buckets = 0.0, []
        for bound in (*BOUNDS, float("inf")):
            within += counts.get((*labels, _bound(bound)), 0.0)
            buckets.append((_bound(bound), within))
        family.add_metric(labels, buckets, total)
    return family


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else repr(seconds)


def bucket(seconds: float) -> str:
    """The bucket that a duration falls in, by its upper bound."""
    return next((_bound(bound) for bound in BOUNDS if seconds <= bound), "+Inf")
