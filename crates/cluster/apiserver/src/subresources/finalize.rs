//! `namespaces/NAME/finalize`: the namespace controller says that everything is cleaned up.

use api::status::Status;
use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::{
    http::body::Body,
    object,
    ownership::Draft,
    registry::{Call, Registry},
};

impl Registry {
    /// `PUT`: takes over `spec.finalizers`. A namespace that is being deleted goes with the last.
    pub(crate) async fn finalize(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let decoded = call.decode(headers, &body)?;
        let dry_run = call.dry_run()?;
        let writer = call.writer("UpdateOptions", self.clock.now())?;
        let value = self
            .change(call, &writer, dry_run, |live| {
                let mut new = live.object.clone();
                object::copy(&mut new, &decoded.object, &["spec", "finalizers"]);
                object::copy(&mut new, &decoded.object, &["metadata", "resourceVersion"]);
                Ok(Draft::compared(new))
            })
            .await?;
        self.changed(call, &value, &decoded.warnings)
    }
}
