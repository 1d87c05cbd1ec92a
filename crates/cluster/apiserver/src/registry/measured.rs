//! Get and list of kinds that are measured by nodes when somebody asks, in the words of
//! metrics-server.

use std::time::Duration;

use api::status::{GroupResource, Status};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use store::{Entry, Revision};

use super::{Call, Registry, filter::Filter, keys, render::Header};
use crate::{
    connector::{Usage, Used},
    http::{body::Body, respond},
    kinds::{Kind, Measured, cpu_quantity, memory_quantity},
    object,
};

impl Registry {
    /// `GET` of a collection.
    pub(crate) async fn list_measured(
        &self,
        call: &Call<'_>,
        what: Measured,
    ) -> Result<Response<Body>, Status> {
        let filter = Filter::of(call.kind, &call.query, call.name)?;
        let entries = self.measure(call, what).await?;
        let selected = entries.iter().filter(|it| filter.selects(it));
        self.renderer(call)?.list(&json!({}), selected.map(|it| &it.value))
    }

    /// `GET …/NAME`.
    pub(crate) async fn get_measured(
        &self,
        call: &Call<'_>,
        what: Measured,
    ) -> Result<Response<Body>, Status> {
        let measured = what.kind();
        let namespace = call.namespace.unwrap_or_default();
        if self.store.get(&keys::object(measured, namespace, call.name)).is_none() {
            return Err(Status::not_found(measured.resource(), call.name));
        }
        let entries = self.measure(call, what).await?;
        let key = call.key();
        let Some(found) = entries.iter().find(|it| it.key == key) else {
            // As metrics-server says what has no rate yet.
            let (resource, name) = match what {
                Measured::Nodes => ("nodemetrics", call.name.to_owned()),
                Measured::Pods => ("podmetrics", format!("{namespace}/{}", call.name)),
            };
            let of = GroupResource { group: call.kind.group, resource };
            return Err(Status::not_found(of, &name));
        };
        let text = self.renderer(call)?.object(&found.value, Header::Shown)?;
        respond::encoded(StatusCode::OK, call.wanted.encoding, text)
    }

    /// What there is in the namespace of the call, by key.
    async fn measure(&self, call: &Call<'_>, what: Measured) -> Result<Vec<Entry>, Status> {
        let usage = self.connector.usage().await?;
        let entry = |namespace: &str, name: &str, used: Option<&Used>, rest: Value| {
            let measured = self.store.get(&keys::object(what.kind(), namespace, name))?;
            let labels = object::parse(&measured.value).ok()?;
            let labels = object::at(&labels, &["metadata", "labels"]).cloned();
            let value = whole(call.kind, (namespace, name), labels, (used?, rest));
            let key = keys::object(call.kind, namespace, name);
            let none = Revision::default();
            Some(Entry { key, value: value.to_string().into(), created: none, modified: none })
        };
        let entries = match what {
            Measured::Nodes => {
                let node = |it: &Usage| {
                    let rest = json!({ "usage": amounts(&it.all) });
                    entry("", &it.node, Some(&it.all), rest)
                };
                usage.iter().filter_map(node).collect()
            }
            Measured::Pods => {
                let of_call = |it: &&str| call.namespace.is_none_or(|namespace| namespace == *it);
                let pods = usage.iter().flat_map(|it| &it.pods);
                let pods = pods.filter(|it| of_call(&it.namespace.as_str()));
                let containers =
                    |it: &(String, Used)| json!({ "name": it.0, "usage": amounts(&it.1) });
                pods.filter_map(|it| {
                    let all: Vec<Value> = it.containers.iter().map(containers).collect();
                    let used = it.containers.first().map(|it| &it.1);
                    entry(&it.namespace, &it.name, used, json!({ "containers": all }))
                })
                .collect()
            }
        };
        Ok(entries)
    }
}

fn whole(
    kind: &Kind,
    (namespace, name): (&str, &str),
    labels: Option<Value>,
    (used, rest): (&Used, Value),
) -> Value {
    let at = object::time(used.at);
    let mut metadata = json!({ "name": name, "creationTimestamp": at });
    if !namespace.is_empty() {
        object::set(&mut metadata, &["namespace"], json!(namespace));
    }
    if let Some(labels) = labels {
        object::set(&mut metadata, &["labels"], labels);
    }
    let mut object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": metadata,
        "timestamp": at,
        "window": go_duration(used.window),
    });
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        object.extend(rest);
    }
    object
}

fn amounts(used: &Used) -> Value {
    json!({ "cpu": cpu_quantity(used.cpu_nanos), "memory": memory_quantity(used.memory_bytes) })
}

/// A duration as Go prints it, to the millisecond: `1m15.032s`.
fn go_duration(duration: Duration) -> String {
    /// Seconds of a minute.
    const MINUTE: u64 = 60;
    let (minutes, seconds) = (duration.as_secs() / MINUTE, duration.as_secs() % MINUTE);
    let millis = format!("{:03}", duration.subsec_millis());
    let fraction = match millis.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    match minutes {
        0 => format!("{seconds}{fraction}s"),
        _ => format!("{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (millis, expected) in [
            (1000, "1s"),
            (15_032, "15.032s"),
            (15_100, "15.1s"),
            (60_000, "1m0s"),
            (75_500, "1m15.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), expected);
        }
    }
}
