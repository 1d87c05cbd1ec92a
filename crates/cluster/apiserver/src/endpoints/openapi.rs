//! `/openapi/v3`: an index with hashed addresses, and one document for each group and version.
//! `/openapi/v2`: one document, as JSON or protobuf. Each is made when it is first asked for.

use std::{collections::BTreeMap, io::Write as _, sync::OnceLock};

use api::status::Status;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, LOCATION},
};
use serde_json::{Map, json};

use super::{
    discovery::group_versions,
    document::{Document, Packed},
};
use crate::{
    http::{body::Body, content, query::Query, respond},
    openapi,
};

const JSON: &str = "application/json";
/// Protobuf of version 2, as it is answered, and as older clients ask for it.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V2_PROTOBUF_DEPRECATED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// All documents, from the first request on.
#[derive(Debug, Default)]
pub(crate) struct OpenApi(OnceLock<Documents>);

/// Those that were asked for are kept, compressed; there are as many as groups and versions.
#[derive(Debug)]
struct Documents {
    documents: BTreeMap<(&'static str, &'static str), Packed>,
    index: Document,
    v2: Packed,
    v2_protobuf: Packed,
}

impl Documents {
    fn new() -> Self {
        let fingerprint = openapi::fingerprint();
        let documents: BTreeMap<_, _> = group_versions()
            .into_iter()
            .map(|it| {
                let mut fingerprint = fingerprint;
                fingerprint.add(format!("{}/{}", it.0, it.1).as_bytes());
                (it, Packed::new(fingerprint.0, JSON))
            })
            .collect();
        let mut paths = Map::new();
        for (group_version, document) in &documents {
            let (path, url) = address(*group_version, document.hash());
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
        Self {
            documents,
            index: Document::new(&json!({"paths": paths}), JSON),
            v2: Packed::new(fingerprint.0, JSON),
            // The two are told apart by what `Vary` names.
            v2_protobuf: Packed::new(fingerprint.0, V2_PROTOBUF),
        }
    }
}

impl OpenApi {
    fn all(&self) -> &Documents {
        self.0.get_or_init(Documents::new)
    }

    /// `/openapi/v3`
    pub(crate) fn index(&self, headers: &HeaderMap) -> Result<Response<Body>, Status> {
        self.all().index.answer(headers)
    }

    /// `/openapi/v3/api/VERSION`, `/openapi/v3/apis/GROUP/VERSION`. With the right `hash` the answer
    /// may be kept for ever; with a wrong one the client is sent to the right address.
    pub(crate) fn document(
        &self,
        group: &str,
        version: &str,
        query: &Query<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        let found = self.all().documents.iter().find(|(it, _)| **it == (group, version));
        let (group_version, document) = found.ok_or_else(Status::no_such_path)?;
        let accepted = content::accepted(headers);
        if !accepted.iter().any(|it| is_json(it)) {
            return Err(Status::not_acceptable(&[JSON]));
        }
        let hash = query.get("hash");
        if hash.is_some_and(|it| it != document.hash()) {
            return moved(&address(*group_version, document.hash()).1);
        }
        let mut response =
            document.answer(headers, |out| openapi::write_v3(group, version, out))?;
        if hash.is_some() {
            let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
            response.headers_mut().insert(CACHE_CONTROL, forever);
        }
        Ok(response)
    }

    /// `/openapi/v2`
    pub(crate) fn v2(&self, headers: &HeaderMap) -> Result<Response<Body>, Status> {
        for it in content::accepted(headers) {
            if is_json(&it) {
                return self.all().v2.answer(headers, openapi::write_v2);
            }
            if [V2_PROTOBUF, V2_PROTOBUF_DEPRECATED].contains(&it.as_str()) {
                return self
                    .all()
                    .v2_protobuf
                    .answer(headers, |out| out.write_all(&openapi::v2_protobuf()?));
            }
        }
        Err(Status::not_acceptable(&[JSON, V2_PROTOBUF]))
    }
}

fn is_json(media_type: &str) -> bool {
    matches!(media_type, JSON | "application/*" | "*/*")
}

/// Path in the index and address of a document.
fn address((group, version): (&str, &str), hash: &str) -> (String, String) {
    let path =
        if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
    let url = format!("/openapi/v3/{path}?hash={hash}");
    (path, url)
}

fn moved(url: &str) -> Result<Response<Body>, Status> {
    let location = HeaderValue::from_str(url)
        .map_err(|error| Status::internal(&format!("make an address: {error}")))?;
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
