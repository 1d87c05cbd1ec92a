//! Answers to reviews: who asks, whose a token is, what somebody may do. They are those that requests
//! get: the same functions are asked.

use std::collections::BTreeMap;

use api::status::Status;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    authorization::{self, Action, Objects, Rule, Target},
    http::{body::Body, content, respond},
    identity::{self, Identity},
    kinds::{Causes, Question},
    object::{self, at, decode::Decoded, text},
    registry::{Call, Registry, take_namespace},
};

impl Registry {
    /// `POST` of a review.
    pub(crate) fn review(
        &self,
        call: &Call<'_>,
        question: Question,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>, Status> {
        // It is no object that a table or metadata alone could show.
        let encoding = content::negotiate_encoding(headers)?;
        // An answer changes nothing, so it is no other one in a dry run.
        call.dry_run()?;
        let Decoded { object: mut review, warnings } = call.decode(headers, body)?;
        take_namespace(call, &mut review)?;
        let mut causes = Causes::default();
        (call.kind.validate)(&review, &mut causes);
        call.kind.refuse("", &causes)?;
        // The server itself asks nothing.
        let who = call.user.ok_or_else(Status::unauthorized)?;
        let status = answer(question, who, &review)?;
        object::set(&mut review, &["status"], status);
        if question == Question::WhoAmI {
            let now = object::time(self.clock.now());
            object::set(&mut review, &["metadata", "creationTimestamp"], now);
        }
        let text = review.to_string().into();
        let mut response = respond::encoded(StatusCode::CREATED, encoding, text)?;
        respond::warn(&mut response, &warnings);
        Ok(response)
    }
}

/// The status of a review.
fn answer(question: Question, who: &Identity, review: &Value) -> Result<Value, Status> {
    let spec = review.get("spec").unwrap_or(&Value::Null);
    match question {
        Question::WhoAmI => Ok(json!({"userInfo": described(who)})),
        Question::WhoseToken => whose(text(spec, &["token"])),
        Question::MayI => Ok(allowed(who, spec)),
        Question::MayThey => Ok(allowed(&subject(spec), spec)),
        Question::WhatMayI if text(spec, &["namespace"]).is_empty() => {
            Err(Status::bad_request("no namespace on request"))
        }
        Question::WhatMayI => Ok(granted(who)),
    }
}

fn whose(token: &str) -> Result<Value, Status> {
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    Ok(match identity::of_token(token) {
        Ok(who) => json!({"authenticated": true, "user": described(&who)}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}

/// A `UserInfo`.
fn described(who: &Identity) -> Value {
    let Identity { name, uid, groups, extra } = who;
    let mut info = json!({"username": name, "uid": uid, "groups": groups, "extra": extra});
    if let Some(info) = info.as_object_mut() {
        let empty = |it: &Value| *it == json!("") || *it == json!([]) || *it == json!({});
        info.retain(|_, value| !empty(value));
    }
    info
}

/// Whom a review is about.
fn subject(spec: &Value) -> Identity {
    let list = |it: &Value| -> Vec<String> {
        it.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra: BTreeMap<_, _> = at(spec, &["extra"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.clone(), list(values)))
        .collect();
    Identity {
        name: text(spec, &["user"]).to_owned(),
        uid: text(spec, &["uid"]).to_owned(),
        groups: spec.get("groups").map(list).unwrap_or_default(),
        extra,
    }
}

/// Whether `who` may do what a review describes.
fn allowed(who: &Identity, spec: &Value) -> Value {
    let (verb, target) = match spec.get("resourceAttributes") {
        Some(it) => {
            let field = |name: &str| text(it, &[name]);
            let objects = Objects {
                group: field("group"),
                resource: field("resource"),
                subresource: field("subresource"),
                namespace: field("namespace").into(),
                name: field("name").into(),
            };
            (field("verb"), Target::Objects(objects))
        }
        None => {
            let field = |name: &str| text(spec, &["nonResourceAttributes", name]);
            (field("verb"), Target::Path(field("path")))
        }
    };
    json!({"allowed": authorization::allows(who, &Action { verb: verb.into(), target })})
}

/// All that `who` may do.
fn granted(who: &Identity) -> Value {
    let (mut objects, mut paths) = (Vec::new(), Vec::new());
    for Rule { verbs, groups, resources, paths: urls } in authorization::rules_of(who) {
        let mut rule = Map::from_iter([("verbs".to_owned(), json!(verbs))]);
        if urls.is_empty() {
            rule.insert("apiGroups".to_owned(), json!(groups));
            rule.insert("resources".to_owned(), json!(resources));
            objects.push(Value::Object(rule));
        } else {
            rule.insert("nonResourceURLs".to_owned(), json!(urls));
            paths.push(Value::Object(rule));
        }
    }
    json!({"resourceRules": objects, "nonResourceRules": paths, "incomplete": false})
}
