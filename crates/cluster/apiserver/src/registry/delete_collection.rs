//! Delete of all objects a list would show.

use api::status::{Reason, Status};
use bytes::Bytes;
use http::{HeaderMap, Response};

use super::{
    Call, Registry,
    delete::{Deleted, Options},
    keys,
};
use crate::{
    admission,
    http::{body::Body, query::Query},
};

impl Registry {
    /// `DELETE` of a collection, with selectors; with `limit`, of one page of it. Answers with the
    /// list of what was deleted, as it was.
    pub(crate) async fn delete_collection(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let options = Options::read(&call.query, headers, &body)?;
        let found = self.find(call)?;
        for entry in &found.entries {
            let (namespace, name) = keys::namespace_and_name(&entry.key);
            admission::delete(call.kind, name)?;
            let one = Call {
                kind: call.kind,
                namespace: Some(namespace),
                name,
                subresource: None,
                query: Query::default(),
                agent: call.agent,
                wanted: call.wanted,
                user: call.user,
            };
            match self.delete_object(&one, &options).await {
                Ok(Deleted::Gone(_) | Deleted::Waits(_)) => {}
                // Somebody else deleted it first.
                Err(status) if status.reason() == Reason::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        let metadata = self.list_metadata(call, &found);
        let values = found.entries.iter().map(|it| &it.value);
        self.renderer(call)?.list(&metadata, values)
    }
}
