//! `pods/NAME/eviction`: deletes a pod if its disruption budget allows that, and takes it from the
//! budget. What a budget allows is what its status says.

use api::{
    selector::LabelSelector,
    status::{self, Cause, Reason, Status},
};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use store::Range;

use crate::{
    http::{body::Body, query::Query, respond},
    kinds::{KINDS, Kind},
    limits::BUDGET_EVICTIONS_MAX,
    object::{self, at, is_terminating, meta, text},
    ownership::{Draft, Live},
    patch::read_object,
    registry::{Call, DeleteOptions, Registry, keys},
};

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const TOO_MANY: &str = "This pod has more than one PodDisruptionBudget, which the eviction \
    subresource does not support.";
/// Seconds after which a client asks again when the budget is not up to date.
const RETRY_SECONDS: u32 = 10;

impl Registry {
    /// `POST` of an Eviction.
    pub(crate) async fn evict(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let eviction = read_object(headers, &body)?;
        if !meta(&eviction, "name").is_empty() && meta(&eviction, "name") != call.name {
            let message = "name in URL does not match name in Eviction object";
            return Err(Status::bad_request(message));
        }
        let options = eviction.get("deleteOptions").map(Value::to_string).unwrap_or_default();
        let options = DeleteOptions::read(&call.query, &HeaderMap::new(), options.as_bytes())?;
        let entry = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let pod = object::parse(&entry.value)?;
        options.check_preconditions(call, &pod)?;
        if is_guarded(&pod) {
            self.ask_budget(call, &pod, options.dry_run).await?;
        }
        let whole = Call { query: Query::default(), wanted: call.wanted, ..*call };
        if !options.dry_run {
            let now = object::time(self.clock.now());
            let writer = call.writer("CreateOptions", self.clock.now())?;
            let draft = |pod: Live<'_>| Ok(Draft::kept(marked(pod.object, &now)));
            self.change(&whole, &writer, false, draft).await?;
        }
        self.delete_object(&whole, &options.without_resource_version()).await?;
        let text = status::created().to_string().into();
        respond::encoded(StatusCode::CREATED, call.wanted.encoding, text)
    }

    /// Takes the pod from its budget, if it has one; refuses if that allows nothing.
    async fn ask_budget(&self, call: &Call<'_>, pod: &Value, dry_run: bool) -> Result<(), Status> {
        let Some(kind) = budgets() else { return Ok(()) };
        let namespace = call.namespace.unwrap_or_default();
        let prefix = keys::collection(kind, Some(namespace));
        let mut names = Vec::new();
        for entry in self.store.range(Range::prefix(&prefix)).entries {
            match object::parse(&entry.value) {
                Ok(budget) if covers(&budget, pod) => names.push(meta(&budget, "name").to_owned()),
                Ok(_) => {}
                // As in a list: one malformed object does not stop all others.
                Err(status) => {
                    let key = entry.key.escape_ascii();
                    tracing::error!(%status, %key, "a disruption budget is passed over");
                }
            }
        }
        let name = match names.as_slice() {
            [] => return Ok(()),
            [name] => name,
            _ => return Err(Status::new(Reason::InternalError, TOO_MANY)),
        };
        let call = Call {
            kind,
            namespace: Some(namespace),
            name,
            subresource: call.subresource,
            query: Query::default(),
            agent: call.agent,
            wanted: call.wanted,
            user: call.user,
        };
        let now = object::time(self.clock.now());
        let writer = call.writer("CreateOptions", self.clock.now())?;
        let asked = self.change(&call, &writer, dry_run, |live| {
            let budget = live.object;
            Ok(Draft::kept(if needs_no_budget(budget, pod) {
                budget.clone()
            } else {
                taken(budget, meta(pod, "name"), &now)?
            }))
        });
        asked.await.map(|_| ())
    }
}

fn budgets() -> Option<&'static Kind> {
    KINDS.iter().copied().find(|it| (it.group, it.kind) == ("policy", "PodDisruptionBudget"))
}

/// A pod that does not run disturbs nobody when it goes.
fn is_guarded(pod: &Value) -> bool {
    let phase = text(pod, &["status", "phase"]);
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !is_terminating(pod)
}

/// Whether the budget is about the pod. One whose selector cannot be read is about none.
fn covers(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = at(budget, &["spec", "selector"]) else { return false };
    let Ok(selector) = serde_json::from_value(selector.clone()) else { return false };
    LabelSelector::from_object(&selector).is_ok_and(|it| {
        it.matches_with(|key| at(pod, &["metadata", "labels", key]).and_then(Value::as_str))
    })
}

/// A pod that is not ready counts for nothing, and may go if the others are enough or the budget
/// says so.
fn needs_no_budget(budget: &Value, pod: &Value) -> bool {
    let conditions = at(pod, &["status", "conditions"]).and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|it| text(it, &["type"]) == "Ready" && text(it, &["status"]) == "True");
    let (healthy, wanted) = (count(budget, "currentHealthy"), count(budget, "desiredHealthy"));
    let always = text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
    !ready && (always || (wanted <= healthy && 0 < wanted))
}

fn count(budget: &Value, name: &str) -> i64 {
    at(budget, &["status", name]).and_then(Value::as_i64).unwrap_or_default()
}

/// The budget after the pod was taken from it.
fn taken(budget: &Value, pod: &str, now: &Value) -> Result<Value, Status> {
    let name = meta(budget, "name");
    let generation = at(budget, &["metadata", "generation"]).and_then(Value::as_i64);
    if count(budget, "observedGeneration") < generation.unwrap_or_default() {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(why).with_retry_after(RETRY_SECONDS));
    }
    let disrupted = at(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
    let allowed = count(budget, "disruptionsAllowed");
    let why = match disrupted.map_or(0, serde_json::Map::len) {
        _ if allowed < 0 => "pdb disruptions allowed is negative",
        too_many if BUDGET_EVICTIONS_MAX < too_many => {
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        }
        _ => "",
    };
    if !why.is_empty() {
        let resource = status::GroupResource { group: "policy", resource: "poddisruptionbudget" };
        return Err(Status::forbidden(resource, name, why));
    }
    if allowed == 0 {
        return Err(refused(why_none(budget)));
    }
    let mut new = budget.clone();
    object::set(&mut new, &["status", "disruptionsAllowed"], json!(allowed - 1));
    object::set(&mut new, &["status", "disruptedPods", pod], now.clone());
    Ok(new)
}

fn why_none(budget: &Value) -> String {
    let name = meta(budget, "name");
    let conditions = at(budget, &["status", "conditions"]).and_then(Value::as_array);
    let condition = conditions.into_iter().flatten().find(|it| {
        text(it, &["type"]) == "DisruptionAllowed"
            && text(it, &["status"]) == "False"
            && !text(it, &["message"]).is_empty()
    });
    let (reason, message) =
        condition.map_or(("", ""), |it| (text(it, &["reason"]), text(it, &["message"])));
    let (healthy, wanted) = (count(budget, "currentHealthy"), count(budget, "desiredHealthy"));
    if reason == "SyncFailed" {
        format!(
            "The disruption budget {name} does not allow evicting pods currently because it \
             failed sync: {message}"
        )
    } else if healthy <= wanted {
        format!(
            "The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
        )
    } else if condition.is_some() {
        format!(
            "The disruption budget {name} does not allow evicting pods currently ({reason}): \
             {message}"
        )
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    }
}

fn refused(why: String) -> Status {
    Status::new(Reason::TooManyRequests, REFUSED).with_cause(Cause {
        reason: "DisruptionBudget",
        message: why,
        field: String::new(),
    })
}

/// The pod with the condition that says why it goes.
fn marked(pod: &Value, now: &Value) -> Value {
    let mut pod = pod.clone();
    let conditions = at(&pod, &["status", "conditions"]).and_then(Value::as_array);
    let mut conditions = conditions.cloned().unwrap_or_default();
    conditions.retain(|it| text(it, &["type"]) != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    }));
    object::set(&mut pod, &["status", "conditions"], Value::Array(conditions));
    pod
}
