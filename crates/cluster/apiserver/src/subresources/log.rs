//! `pods/NAME/log`: finds the container, then asks the node.

use std::sync::Arc;

use api::status::{Cause, Status};
use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::{
    connector::{LogOptions, LogRequest},
    http::{body::Body, query::Query, respond},
    object::{self, at, meta, text},
    registry::{Call, Registry},
};

impl Registry {
    /// `GET`.
    pub(crate) async fn log(self: &Arc<Self>, call: &Call<'_>) -> Result<Response<Body>, Status> {
        let entry = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let pod = object::parse(&entry.value)?;
        let options = options(call.name, &call.query)?;
        let container = container(&pod, call.query.get("container"))?.to_owned();
        let node = text(&pod, &["spec", "nodeName"]);
        if node.is_empty() {
            // As in Kubernetes: a pod that has no node has an empty log.
            return Ok(respond::text(StatusCode::OK, Bytes::new()));
        }
        let request = LogRequest {
            namespace: meta(&pod, "namespace").to_owned(),
            pod: meta(&pod, "name").to_owned(),
            uid: meta(&pod, "uid").to_owned(),
            node: node.to_owned(),
            container,
            options,
        };
        let lines = self.connector.logs(request).await?;
        // An error in the middle can only end the body; the log says so.
        let lines = lines.map(|chunk| {
            chunk.inspect_err(|error| tracing::warn!(%error, "a log ended early")).ok()
        });
        let lines = lines.take_while(|it| future::ready(it.is_some()));
        let lines = lines.flat_map(stream::iter);
        let stop = self.stop.clone();
        let lines = lines.take_until(async move { stop.cancelled().await });
        Ok(respond::text_stream(Body::chunks(lines)))
    }
}

/// The container that is asked for, or the only one.
fn container<'a>(pod: &'a Value, asked: Option<&'a str>) -> Result<&'a str, Status> {
    let names = |list: &str| -> Vec<&'a str> {
        let list = at(pod, &["spec", list]).and_then(Value::as_array);
        list.into_iter().flatten().map(|it| text(it, &["name"])).collect()
    };
    let (containers, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = meta(pod, "name");
    match (asked, containers.as_slice()) {
        (Some(asked), _) => {
            if [&containers, &init, &ephemeral].iter().any(|it| it.contains(&asked)) {
                return Ok(asked);
            }
            let message = format!("container {asked} is not valid for pod {pod_name}");
            Err(Status::bad_request(message))
        }
        (None, [only]) if init.is_empty() => Ok(only),
        (None, _) => {
            let init = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]{init}",
                containers.join(" ")
            )))
        }
    }
}

fn options(pod: &str, query: &Query<'_>) -> Result<LogOptions, Status> {
    let since_time = query.get("sinceTime").map(|it| {
        it.parse().map_err(|_| Status::bad_request(format!("sinceTime: `{it}` is not a time")))
    });
    let mut causes = Vec::new();
    let mut number = |name: &str, least: i64| -> Result<Option<u64>, Status> {
        let Some(value) = query.number(name)? else { return Ok(None) };
        if value < least {
            causes.push(Cause {
                reason: "FieldValueInvalid",
                message: format!(
                    "Invalid value: {value}: must be greater than {}",
                    if least == 0 { "or equal to 0" } else { "0" }
                ),
                field: name.to_owned(),
            });
        }
        Ok(u64::try_from(value).ok())
    };
    let (tail_lines, since_seconds, limit_bytes) =
        (number("tailLines", 0)?, number("sinceSeconds", 1)?, number("limitBytes", 1)?);
    if !causes.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod, causes));
    }
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines,
        since_seconds,
        since_time: since_time.transpose()?,
        limit_bytes,
    })
}
