//! A container's environment, command and arguments, from the pod's specification and the objects
//! it refers to.
//!
//! Pure: objects are looked up in what the caller already has. What goes wrong is told in the
//! kubelet's words, because people search for them.

mod expand;
mod fields;
mod services;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service,
};

use crate::context::is_on_host;

pub(crate) use expand::expand;
pub(crate) use fields::Place;

/// The objects that pods refer to, as last seen.
pub(crate) trait Objects {
    /// The ConfigMap, if there is one.
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>>;
    /// The Secret, if there is one.
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>>;
    /// Every service, in a fixed order.
    fn services(&self) -> Vec<Arc<Service>>;
}

/// What is missing for a container to be configured: the kubelet's words, shown as the message of
/// the waiting reason `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub String);

/// A container's variables, each name once, those of `base` (what the machine gives) first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    /// The variables in the order the kubelet sets them.
    #[must_use]
    pub(crate) fn into_variables(self) -> Vec<(String, String)> {
        self.variables
    }

    /// The value of `name`.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.variables.iter_mut().find(|(it, _)| it == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }
}

/// Makes the environment of `container`: `base`, overridden by `envFrom`, by `env`, and, where
/// none of these has the name, the service variables. `$(NAME)` sees what was set before it.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    place: &Place,
    base: &[(String, String)],
    objects: &dyn Objects,
) -> Result<Environment, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|it| it.enable_service_links).unwrap_or(true);
    let services = objects.services();
    // From the host's network none of them is reached.
    let reached = services.iter().map(Arc::as_ref).filter(|_| !is_on_host(pod));
    let services = services::variables(reached, namespace, links);
    let mut declared = Environment::default();
    add_sources(&mut declared, container, namespace, objects)?;
    let context = Context { pod, container, place, namespace, objects };
    for variable in container.env.as_deref().unwrap_or_default() {
        if let Some(value) = context.value(variable, &declared, &services)? {
            declared.set(&variable.name, value);
        }
    }
    let mut result = Environment { variables: base.to_vec() };
    for (name, value) in declared.variables.iter().cloned() {
        result.set(&name, value);
    }
    for (name, value) in services {
        if declared.get(&name).is_none() {
            result.set(&name, value);
        }
    }
    Ok(result)
}

fn add_sources(
    result: &mut Environment,
    container: &Container,
    namespace: &str,
    objects: &dyn Objects,
) -> Result<(), ConfigError> {
    for source in container.env_from.as_deref().unwrap_or_default() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let entries = if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional.unwrap_or_default();
            config_map_text(objects, namespace, &reference.name, optional)?
        } else if let Some(reference) = &source.secret_ref {
            let optional = reference.optional.unwrap_or_default();
            secret_text(objects, namespace, &reference.name, optional)?
        } else {
            BTreeMap::new()
        };
        for (key, value) in entries {
            let name = format!("{prefix}{key}");
            if is_variable_name(&name) {
                result.set(&name, value);
            }
        }
    }
    Ok(())
}

/// Any printable ASCII but `=`, as Kubernetes allows since 1.34; other keys are left out.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|it| matches!(it, b' '..=b'~') && it != b'=')
}

fn config_map_text(
    objects: &dyn Objects,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, String>, ConfigError> {
    match objects.config_map(namespace, name) {
        Some(object) => Ok(object.data.clone().unwrap_or_default()),
        None if optional => Ok(BTreeMap::new()),
        None => Err(ConfigError(format!("configmap \"{name}\" not found"))),
    }
}

fn secret_text(
    objects: &dyn Objects,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, String>, ConfigError> {
    match objects.secret(namespace, name) {
        Some(object) => {
            let data = object.data.iter().flatten();
            let text = data.map(|(key, value)| (key.clone(), text_of(&value.0)));
            Ok(text.collect())
        }
        None if optional => Ok(BTreeMap::new()),
        None => Err(ConfigError(format!("secret \"{name}\" not found"))),
    }
}

/// A variable is text: bytes that are none are replaced, since `execve` could not take a NUL and
/// the wire to the shim is text.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Context<'a> {
    pod: &'a Pod,
    container: &'a Container,
    place: &'a Place,
    namespace: &'a str,
    objects: &'a dyn Objects,
}

impl Context<'_> {
    /// The value of `variable`; `None` leaves it out (an optional reference to what is not there).
    fn value(
        &self,
        variable: &EnvVar,
        declared: &Environment,
        services: &[(String, String)],
    ) -> Result<Option<String>, ConfigError> {
        if let Some(source) = &variable.value_from {
            return self.referred(source);
        }
        let text = variable.value.as_deref().unwrap_or_default();
        let service = |name: &str| services.iter().find(|(it, _)| it == name);
        Ok(Some(expand(text, |name| {
            declared.get(name).or_else(|| service(name).map(|(_, value)| value.as_str()))
        })))
    }

    fn referred(&self, source: &EnvVarSource) -> Result<Option<String>, ConfigError> {
        let Self { pod, container, place, namespace, objects } = *self;
        if let Some(it) = &source.field_ref {
            return fields::field(pod, place, &it.field_path).map(Some).map_err(ConfigError);
        }
        if let Some(it) = &source.resource_field_ref {
            return fields::resource(pod, container, place, it).map(Some).map_err(ConfigError);
        }
        let (mut entries, key, kind, name, optional) = if let Some(it) = &source.config_map_key_ref
        {
            let optional = it.optional.unwrap_or_default();
            let entries = config_map_text(objects, namespace, &it.name, optional)?;
            (entries, &it.key, "ConfigMap", &it.name, optional)
        } else if let Some(it) = &source.secret_key_ref {
            let optional = it.optional.unwrap_or_default();
            let entries = secret_text(objects, namespace, &it.name, optional)?;
            (entries, &it.key, "Secret", &it.name, optional)
        } else {
            return Err(ConfigError("unsupported source of a variable".to_owned()));
        };
        match entries.remove(key) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => {
                Err(ConfigError(format!("couldn't find key {key} in {kind} {namespace}/{name}")))
            }
        }
    }
}

/// The command line: `command` takes the place of `entry_point`, `args` are appended; both are
/// expanded. With an entry point and no `command`, the entry point is not expanded.
#[must_use]
pub(crate) fn command_line(
    container: &Container,
    entry_point: &[String],
    environment: &Environment,
) -> Vec<String> {
    let expand = |it: &String| expand(it, |name| environment.get(name));
    let command = container.command.as_deref().unwrap_or_default();
    let mut result: Vec<String> = if command.is_empty() {
        entry_point.to_vec()
    } else {
        command.iter().map(expand).collect()
    };
    result.extend(container.args.iter().flatten().map(expand));
    result
}

#[cfg(test)]
pub(crate) mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;
    use crate::context::PodAddress;

    /// A few objects to refer to.
    #[derive(Debug, Default)]
    pub(crate) struct Fixed;

    impl Objects for Fixed {
        fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
            (namespace == "shop" && name == "settings").then(|| {
                let data = json!({ "data": { "color": "blue", "size": "$(A)" },
                    "binaryData": { "logo": "iVBORw==" } });
                Arc::new(serde_json::from_value(data).unwrap())
            })
        }

        fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
            (namespace == "shop" && name == "keys").then(|| {
                let data = json!({ "data": { "token": "czNjcjN0" } });
                Arc::new(serde_json::from_value(data).unwrap())
            })
        }

        fn services(&self) -> Vec<Arc<Service>> {
            let service = json!({ "metadata": { "namespace": "shop", "name": "worker" },
                "spec": { "clusterIP": "10.96.0.5", "ports": [{ "port": 80 }] } });
            vec![Arc::new(serde_json::from_value(service).unwrap())]
        }
    }

    fn check(container: Value, expected: &Expect) {
        let container: Container = serde_json::from_value(container).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "app-1", "uid": "u",
                "labels": { "app": "web" }, "annotations": { "a/b": "c" } },
            "spec": { "nodeName": "ship", "serviceAccountName": "default", "containers": [] },
        }))
        .unwrap();
        let place = Place {
            pod_ip: PodAddress {
                v4: Ipv4Addr::new(10, 244, 0, 9),
                v6: Some("fd12:3456:789a::af4:9".parse().unwrap()),
            },
            host_ip: Ipv4Addr::new(10, 244, 0, 1),
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
        };
        let base = [("HOME".to_owned(), "/home/me".to_owned())];
        let text = match environment(&pod, &container, &place, &base, &Fixed) {
            Err(error) => format!("error: {error}\n"),
            Ok(environment) => {
                let command = command_line(&container, &["./server".to_owned()], &environment);
                let shown = environment.into_variables().into_iter();
                let shown = shown.filter(|(name, _)| !name.starts_with("WORKER_PORT"));
                let lines = shown.map(|(name, value)| format!("{name}={value}\n"));
                format!("{}{command:?}\n", lines.collect::<String>())
            }
        };
        expected.assert_eq(&text);
    }

    use std::net::Ipv4Addr;

    #[test]
    fn values_see_what_was_set_before() {
        check(
            json!({ "name": "c", "args": ["--at=$(HERE)", "$$(A)", "$(HOME)"], "env": [
                { "name": "A", "value": "1" },
                { "name": "B", "value": "$(A)$(C)" },
                { "name": "C", "value": "3" },
                { "name": "HERE", "value": "http://$(WORKER_SERVICE_HOST)" },
                { "name": "WORKER_SERVICE_PORT", "value": "mine" }] }),
            &expect![[r#"
                HOME=/home/me
                A=1
                B=1$(C)
                C=3
                HERE=http://10.96.0.5
                WORKER_SERVICE_PORT=mine
                WORKER_SERVICE_HOST=10.96.0.5
                ["./server", "--at=http://10.96.0.5", "$(A)", "/home/me"]
            "#]],
        );
    }

    #[test]
    fn fields() {
        let field = |path: &str| json!({ "name": path, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let fields = [
            "metadata.name",
            "metadata.namespace",
            "metadata.uid",
            "metadata.labels['app']",
            "metadata.annotations['a/b']",
            "metadata.labels['none']",
            "spec.nodeName",
            "spec.serviceAccountName",
            "status.podIP",
            "status.podIPs",
            "status.hostIP",
        ];
        let env: Vec<Value> = fields.into_iter().map(field).collect();
        check(
            json!({ "name": "c", "command": ["run"], "env": env }),
            &expect![[r#"
                HOME=/home/me
                metadata.name=app-1
                metadata.namespace=shop
                metadata.uid=u
                metadata.labels['app']=web
                metadata.annotations['a/b']=c
                metadata.labels['none']=
                spec.nodeName=ship
                spec.serviceAccountName=default
                status.podIP=10.244.0.9
                status.podIPs=10.244.0.9,fd12:3456:789a::af4:9
                status.hostIP=10.244.0.1
                WORKER_SERVICE_HOST=10.96.0.5
                WORKER_SERVICE_PORT=80
                ["run"]
            "#]],
        );
        check(
            json!({ "name": "c", "env": [field("status.phase")] }),
            &expect![[r#"
                error: unsupported fieldPath: status.phase
            "#]],
        );
    }

    #[test]
    fn resources_are_rounded_up() {
        let of = |name: &str, resource: &str, divisor: &str| {
            json!({ "name": name, "valueFrom": { "resourceFieldRef": {
                "resource": resource, "divisor": divisor } } })
        };
        check(
            json!({ "name": "c", "resources": { "limits": { "memory": "65Mi" }, "requests": { "cpu": "250m" } },
                "env": [of("CPU", "requests.cpu", "0"), of("MILLIS", "requests.cpu", "1m"),
                    of("NODE_CPU", "limits.cpu", "1"), of("MEMORY", "limits.memory", "1Mi"),
                    of("BYTES", "requests.memory", "1")] }),
            &expect![[r#"
                HOME=/home/me
                CPU=1
                MILLIS=250
                NODE_CPU=2
                MEMORY=65
                BYTES=68157440
                WORKER_SERVICE_HOST=10.96.0.5
                WORKER_SERVICE_PORT=80
                ["./server"]
            "#]],
        );
    }

    #[test]
    fn references() {
        check(
            json!({ "name": "c",
                "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "settings" } },
                    { "secretRef": { "name": "keys" } },
                    { "secretRef": { "name": "none", "optional": true } }],
                "env": [
                    { "name": "A", "value": "1" },
                    { "name": "SIZE", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "size" } } },
                    { "name": "NO", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "no", "optional": true } } },
                    { "name": "NONE", "valueFrom": { "secretKeyRef": { "name": "none", "key": "no", "optional": true } } },
                    { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } }] }),
            &expect![[r#"
                HOME=/home/me
                P_color=blue
                P_size=$(A)
                token=s3cr3t
                A=1
                SIZE=$(A)
                KEY=s3cr3t
                WORKER_SERVICE_HOST=10.96.0.5
                WORKER_SERVICE_PORT=80
                ["./server"]
            "#]],
        );
    }

    #[test]
    fn what_is_missing_is_named_as_the_kubelet_does() {
        let of =
            |source: Value| json!({ "name": "c", "env": [{ "name": "X", "valueFrom": source }] });
        check(
            of(json!({ "configMapKeyRef": { "name": "none", "key": "k" } })),
            &expect![[r#"
                error: configmap "none" not found
            "#]],
        );
        check(
            of(json!({ "configMapKeyRef": { "name": "settings", "key": "k" } })),
            &expect![[r#"
                error: couldn't find key k in ConfigMap shop/settings
            "#]],
        );
        check(
            of(json!({ "secretKeyRef": { "name": "keys", "key": "k" } })),
            &expect![[r#"
                error: couldn't find key k in Secret shop/keys
            "#]],
        );
        check(
            json!({ "name": "c", "envFrom": [{ "secretRef": { "name": "none" } }] }),
            &expect![[r#"
                error: secret "none" not found
            "#]],
        );
    }
}
