"""Prometheus' own parser of its text format, over what a scraper with a certificate is told."""

import itertools
import ssl
import time
import urllib.request

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from prometheus_client.parser import text_string_to_metric_families

NAMESPACE = "default"
SECONDS_MAX = 30

config.load_kube_config()
core = client.CoreV1Api()
about = core.api_client.configuration
tls = ssl.create_default_context(cafile=about.ssl_ca_cert)
tls.load_cert_chain(about.cert_file, about.key_file)


class Page:
    """What one scrape tells."""

    def __init__(self):
        with urllib.request.urlopen(about.host + "/metrics", context=tls, timeout=SECONDS_MAX) as answer:
            self.kind, text = answer.headers["Content-Type"], answer.read().decode()
        self.families = {it.name: it for it in text_string_to_metric_families(text)}
        self.samples = [it for family in self.families.values() for it in family.samples]

    def of(self, name, *labels, **wanted):
        """By the values of some labels, the sums of the samples that have what is wanted."""
        sums = {}
        for it in self.samples:
            if it.name == name and wanted.items() <= it.labels.items():
                key = tuple(it.labels[label] for label in labels)
                sums[key] = sums.get(key, 0) + it.value
        return sums


def more(before, after, name, *labels, **wanted):
    """What has come since."""
    old, new = before.of(name, *labels, **wanted), after.of(name, *labels, **wanted)
    counts = {key: int(new[key] - old.get(key, 0)) for key in sorted(new)}
    return {" ".join(key): count for key, count in counts.items() if count}


def secret(name):
    core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": name}})


before = Page()

print("== Page")
print("type:", before.kind)
for name, family in sorted(before.families.items()):
    print("family:", name, family.type, bool(family.documentation))
samples = [(it.name, *sorted(it.labels.items())) for it in before.samples]
print("each once:", len(samples) == len(set(samples)))

print("== Requests")
for name in ["one", "two", "three"]:
    secret(name)
for _ in range(2):
    core.read_namespaced_secret("one", NAMESPACE)
try:
    core.read_namespaced_secret("missing", NAMESPACE)
except ApiException as error:
    print("missing:", error.status)
listed = core.list_namespaced_secret(NAMESPACE)
core.patch_namespaced_secret("one", NAMESPACE, {"stringData": {"a": "b"}}, dry_run="All")
core.delete_namespaced_secret("three", NAMESPACE)
after = Page()
for labels, count in more(before, after, "apiserver_request_total", "verb", "scope", "dry_run", "code", group="", version="v1", resource="secrets", component="apiserver").items():
    print("more:", labels, count)
print("scrapes:", more(before, after, "apiserver_request_total", "verb", "code", subresource="/metrics"))

print("== Durations")
of = ("verb", "scope", "dry_run", "group", "version", "resource", "subresource", "component")
DURATION = "apiserver_request_duration_seconds"
counts = after.of(DURATION + "_count", *of)
# Only of what nobody else asks for: others' requests are counted while the page is written.
ours = {"resource": "secrets", "scope": "resource"}
print("as many as requests:", after.of(DURATION + "_count", *of, **ours) == after.of("apiserver_request_total", *of, **ours))
print("took time:", all(0 < seconds for seconds in after.of(DURATION + "_sum", *of, **ours).values()))
buckets = {}
for it in after.samples:
    if it.name == DURATION + "_bucket":
        key = tuple(it.labels[label] for label in of)
        buckets.setdefault(key, []).append((float(it.labels["le"]), it.value))
print("buckets:", {len(it) for it in buckets.values()})
print("in order:", all(it == sorted(it) and all(a <= b for (_, a), (_, b) in itertools.pairwise(it)) for it in buckets.values()))
print("the last is all:", {key: it[-1] for key, it in buckets.items()} == {key: (float("inf"), count) for key, count in counts.items()})

print("== Objects")
print("more:", more(before, after, "apiserver_storage_objects", "resource"))
print("the same:", more(before, after, "apiserver_resource_objects", "group", "resource", resource="secrets"))

print("== Watches")


def watches():
    return Page().of("apiserver_longrunning_requests", "verb", "scope", resource="secrets", scope="namespace")


print("before:", watches())
events = watch.Watch()
for event in events.stream(core.list_namespaced_secret, NAMESPACE, resource_version=listed.metadata.resource_version, timeout_seconds=SECONDS_MAX):
    # Deleted after the list, so it is told at once.
    print("event:", event["type"], event["object"].metadata.name)
    print("meanwhile:", watches())
    events.stop()
end = time.monotonic() + SECONDS_MAX
while any(watches().values()) and time.monotonic() < end:
    time.sleep(0.05)
print("afterwards:", watches())
ended = more(after, Page(), "apiserver_request_total", "verb", "scope", "code", resource="secrets", scope="namespace")
print("ended:", ended)
print("sent:", 1 <= sum(more(after, Page(), "apiserver_watch_events_total", "resource", resource="secrets").values()))
