//! `/openapi/v3`: an index with hashed addresses, and one document for each group and version, made
//! when it is first asked for. `/openapi/v2` is not there yet, and says so.

use std::{collections::BTreeMap, sync::OnceLock};

use api::status::{Reason, Status};
use http::{HeaderMap, Response};
use serde_json::{Map, Value, json};

use super::{discovery::group_versions, document::Document};
use crate::{http::body::Body, schema};

const JSON: &str = "application/json";

/// The documents that were asked for so far.
#[derive(Debug)]
pub(crate) struct OpenApi {
    documents: BTreeMap<(&'static str, &'static str), OnceLock<Document>>,
    index: OnceLock<Document>,
}

impl OpenApi {
    pub(crate) fn new() -> Self {
        let documents = group_versions().into_iter().map(|it| (it, OnceLock::new())).collect();
        Self { documents, index: OnceLock::new() }
    }

    /// `/openapi/v3`
    pub(crate) fn index(&self, headers: &HeaderMap) -> Result<Response<Body>, Status> {
        let index = self.index.get_or_init(|| {
            let mut paths = Map::new();
            for ((group, version), document) in &self.documents {
                let path = if group.is_empty() {
                    format!("api/{version}")
                } else {
                    format!("apis/{group}/{version}")
                };
                let hash = document_of(group, version, document).hash();
                let url = format!("/openapi/v3/{path}?hash={hash}");
                paths.insert(path, json!({"serverRelativeURL": url}));
            }
            Document::new(&json!({"paths": paths}), JSON)
        });
        index.answer(headers)
    }

    /// `/openapi/v3/api/VERSION`, `/openapi/v3/apis/GROUP/VERSION`
    pub(crate) fn document(
        &self,
        group: &str,
        version: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        let found = self.documents.iter().find(|(it, _)| **it == (group, version));
        let (_, document) = found.ok_or_else(Status::no_such_path)?;
        document_of(group, version, document).answer(headers)
    }
}

fn document_of<'a>(group: &str, version: &str, document: &'a OnceLock<Document>) -> &'a Document {
    document.get_or_init(|| {
        let value = schema::openapi_v3(group, version).unwrap_or(Value::Null);
        Document::new(&value, JSON)
    })
}

/// `/openapi/v2`
pub(crate) fn v2() -> Status {
    let message = "/openapi/v2 is not served yet: use /openapi/v3 (kubectl does since 1.27)";
    Status::new(Reason::NotFound, message)
}
