// The JavaScript client: objects, an informer, patches, errors.

import * as k8s from "@kubernetes/client-node";

const namespace = "node";
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

await core.createNamespace({ body: { metadata: { name: namespace } } });

// What an informer sees of three changes.
const seen = [];
let enough;
const done = new Promise((resolve) => (enough = resolve));
const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: "watched" });
const path = `/api/v1/namespaces/${namespace}/configmaps`;
const informer = k8s.makeInformer(config, path, list, "watched");
for (const event of ["add", "update", "delete"]) {
  informer.on(event, (object) => {
    seen.push(`${event} ${object.metadata.name} ${JSON.stringify(object.data ?? {})}`);
    if (event === "delete") enough();
  });
}
let stopping = false;
informer.on("error", (error) => {
  // It calls its own end an error.
  if (!stopping) console.log("informer:", error.message);
  enough();
});
await informer.start();
const labels = { watched: "" };
await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "one", labels }, data: { a: "1" } } });
await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "other" } } });
await core.patchNamespacedConfigMap(
  { namespace, name: "one", body: { data: { a: "2" } } },
  k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch),
);
await core.deleteNamespacedConfigMap({ namespace, name: "one" });
await done;
stopping = true;
await informer.stop();
console.log("informer:", seen);

// What people load from files.
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const app = { app: "web" };
const manifest = {
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name: "web", namespace },
  spec: {
    replicas: 1,
    selector: { matchLabels: app },
    template: {
      metadata: { labels: app },
      spec: { containers: [{ name: "web", image: "gcr.io/google_containers/pause" }] },
    },
  },
};
const applied = await objects.patch(manifest, undefined, undefined, "node", false, k8s.PatchStrategy.ServerSideApply);
console.log("applied:", applied.metadata.name, applied.spec.strategy.type);
const replaced = await apps.readNamespacedDeployment({ namespace, name: "web" });
replaced.spec.replicas = 0;
// The controller writes meanwhile; whoever names no version means whatever there is.
delete replaced.metadata.resourceVersion;
console.log("replaced:", (await apps.replaceNamespacedDeployment({ namespace, name: "web", body: replaced })).spec.replicas);

try {
  await core.readNamespacedPod({ namespace, name: "nobody" });
} catch (error) {
  console.log("error:", error.code, JSON.parse(error.body).message);
}
await core.deleteNamespace({ name: namespace });
