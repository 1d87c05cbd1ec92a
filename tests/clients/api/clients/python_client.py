"""The official Python client: typed, dynamic, watching, patching, applying, and its errors."""

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError

NAMESPACE = "python"
SECONDS_MAX = 30

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()

print("== Typed")
core.create_namespace({"metadata": {"name": NAMESPACE}})
labels = {"app": "web"}
container = client.V1Container(name="web", image="gcr.io/google_containers/pause", resources=client.V1ResourceRequirements(requests={"memory": "64Mi"}))
deployment = client.V1Deployment(
    metadata=client.V1ObjectMeta(name="web"),
    spec=client.V1DeploymentSpec(
        replicas=2,
        selector=client.V1LabelSelector(match_labels=labels),
        template=client.V1PodTemplateSpec(
            metadata=client.V1ObjectMeta(labels=labels),
            spec=client.V1PodSpec(containers=[container]),
        ),
    ),
)
made = apps.create_namespaced_deployment(NAMESPACE, deployment)
print("made:", made.metadata.name, made.spec.strategy.type, made.spec.template.spec.restart_policy)

print("== Watching")
for event in watch.Watch().stream(apps.list_namespaced_deployment, NAMESPACE, resource_version=made.metadata.resource_version, timeout_seconds=SECONDS_MAX):
    if event["object"].status.available_replicas == 2:
        print("available:", event["type"], event["object"].metadata.name)
        break
pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=web", field_selector="status.phase=Running")
print("pods:", len(pods.items), {pod.metadata.owner_references[0].kind for pod in pods.items})

print("== Pages")
for number in range(5):
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": f"page-{number}", "labels": {"page": "yes"}}})
names, more = [], None
while True:
    page = core.list_namespaced_config_map(NAMESPACE, label_selector="page", limit=2, _continue=more)
    names.append([item.metadata.name for item in page.items])
    more = page.metadata._continue
    if not more:
        break
print("pages:", names)

print("== Patching")
patched = apps.patch_namespaced_deployment("web", NAMESPACE, {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "1"}]}]}}}})
print("strategic:", [(one.name, one.image, one.env[0].value) for one in patched.spec.template.spec.containers])
scaled = apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 1}})
print("scale:", scaled.kind, scaled.spec.replicas, scaled.status.selector)
patch = [{"op": "add", "path": "/data", "value": {"a": "b"}}]
print("json:", core.patch_namespaced_config_map("page-0", NAMESPACE, patch).data)

print("== Dynamic")
dynamic = DynamicClient(client.ApiClient())
config_maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
print("found:", config_maps.name, config_maps.namespaced)
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"one": "1", "two": "2"}}
print("applied:", config_maps.server_side_apply(body, namespace=NAMESPACE, field_manager="first").data.to_dict())
body["data"] = {"one": "1"}
print("less:", config_maps.server_side_apply(body, namespace=NAMESPACE, field_manager="first").data.to_dict())
body["data"] = {"one": "other"}
try:
    config_maps.server_side_apply(body, namespace=NAMESPACE, field_manager="second")
except ConflictError as error:
    print("conflict:", error.summary())
forced = config_maps.server_side_apply(body, namespace=NAMESPACE, field_manager="second", force_conflicts=True)
print("forced:", forced.data.to_dict(), sorted(entry.manager for entry in forced.metadata.managedFields))

print("== Errors")
for what, action in [
    ("missing", lambda: core.read_namespaced_pod("nobody", NAMESPACE)),
    ("twice", lambda: core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "page-0"}})),
    ("invalid", lambda: core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "No!"}})),
    ("stale", lambda: core.replace_namespaced_config_map("page-0", NAMESPACE, {"metadata": {"name": "page-0", "resourceVersion": "1"}})),
    ("dry run", lambda: print("dry run:", core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "dry"}}, dry_run="All").metadata.name) or core.read_namespaced_config_map("dry", NAMESPACE)),
]:
    try:
        action()
    except ApiException as error:
        print(f"{what}:", error.status, error.reason)

print("== Deleting")
core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="page")
print("left:", [item.metadata.name for item in core.list_namespaced_config_map(NAMESPACE).items])
# Each watch begins at a list from before the deletion: what is gone sooner than a watch is open would otherwise never be told to it.
before = core.list_namespaced_pod(NAMESPACE)
left = {pod.metadata.name for pod in before.items}
apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")
for event in watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, resource_version=before.metadata.resource_version, timeout_seconds=SECONDS_MAX):
    # A list would be ahead of the watch.
    name = event["object"].metadata.name
    (left.discard if event["type"] == "DELETED" else left.add)(name)
    if not left:
        print("pods:", event["type"], core.list_namespaced_pod(NAMESPACE).items)
        break
before = core.list_namespace().metadata.resource_version
core.delete_namespace(NAMESPACE)
one = f"metadata.name={NAMESPACE}"
for event in watch.Watch().stream(core.list_namespace, field_selector=one, resource_version=before, timeout_seconds=SECONDS_MAX):
    if event["type"] == "DELETED":
        print("namespace:", event["type"])
        break
