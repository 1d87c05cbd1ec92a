"""lightkube: typed resources, server-side apply, lists, watches, sub-resources."""

from lightkube import ApiError, Client
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace
from lightkube.types import PatchType

NAMESPACE = "lightkube"
client = Client(namespace=NAMESPACE, field_manager="lightkube")
client.create(Namespace(metadata=ObjectMeta(name=NAMESPACE)))

labels = {"app": "web"}
template = PodTemplateSpec(
    metadata=ObjectMeta(labels=labels),
    spec=PodSpec(containers=[Container(name="web", image="gcr.io/google_containers/pause")]),
)
web = Deployment(
    metadata=ObjectMeta(name="web", namespace=NAMESPACE),
    spec=DeploymentSpec(replicas=1, selector=LabelSelector(matchLabels=labels), template=template),
)
print("applied:", client.apply(web).metadata.name)
client.wait(Deployment, "web", for_conditions=["Available"])
print("scale:", client.get(Deployment.Scale, "web").spec.replicas)
web.spec.replicas = 2
print("again:", client.apply(web).spec.replicas)
managers = {(it.manager, it.operation, it.subresource) for it in client.get(Deployment, "web").metadata.managedFields}
print("managers:", sorted(managers, key=str)[-1])

for number in range(3):
    client.create(ConfigMap(metadata=ObjectMeta(name=f"map-{number}", labels={"number": str(number)})))
print("listed:", [it.metadata.name for it in client.list(ConfigMap, labels={"number": ["0", "2"]}, chunk_size=1)])
patched = client.patch(ConfigMap, "map-0", {"data": {"a": "b"}}, patch_type=PatchType.MERGE)
print("patched:", patched.data)
listed = client.list(ConfigMap, labels={"number": "0"})
before = list(listed) and listed.resourceVersion
client.delete(ConfigMap, "map-0")
for event, it in client.watch(ConfigMap, labels={"number": "0"}, resource_version=before, server_timeout=10):
    print("watched:", event, it.metadata.name)
    break
try:
    client.get(ConfigMap, "map-0")
except ApiError as error:
    print("error:", error.status.code, error.status.reason, error.status.message)
client.delete(Namespace, NAMESPACE)
