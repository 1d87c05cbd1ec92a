//! `namespaces/NAME/finalize`: the namespace controller says that everything is cleaned up.

use api::status::Status;
use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::{
    http::{body::Body, content},
    object::{
        self,
        decode::{self, FieldValidation},
    },
    registry::{Call, Part, Registry},
};

impl Registry {
    /// `PUT`: takes over `spec.finalizers`. A namespace that is being deleted goes with the last.
    pub(crate) async fn finalize(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let validation = FieldValidation::of(&call.query)?;
        let format = content::body_format(headers)?;
        let decoded = decode::object(call.kind, &body, format, validation)?;
        let dry_run = call.dry_run()?;
        let value = self
            .change(call, Part::Internal, dry_run, |old| {
                let mut new = old.clone();
                object::copy(&mut new, &decoded.object, &["spec", "finalizers"]);
                object::copy(&mut new, &decoded.object, &["metadata", "resourceVersion"]);
                Ok(new)
            })
            .await?;
        self.changed(call, &value, &decoded.warnings)
    }
}
