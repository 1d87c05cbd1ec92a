//! DeviceClasses: kinds of devices that can be asked for by name.

use api::names;
use serde_json::Value;

use super::{PLAIN, configurations, selectors};
use crate::kinds::{
    Causes, Kind,
    path::Path,
    print::{self, AGE, NAME},
    value::Read,
};

pub(in crate::kinds) static DEVICE_CLASS: Kind = Kind {
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    namespaced: false,
    schema: "io.k8s.api.resource.v1.DeviceClass",
    generation: true,
    validate,
    columns: &[NAME, AGE],
    row: |it, now| vec![print::name(it), print::age(it, now)],
    ..PLAIN
};

fn validate(class: &Value, causes: &mut Causes) {
    let (spec, path) = (class.field("spec"), Path::new("spec"));
    selectors(spec, path, causes);
    configurations(spec, path, causes);
    if let Some(name) = spec.field("extendedResourceName").as_str() {
        let domain = name.split_once('/').map_or("", |it| it.0);
        let native = domain.is_empty() || domain.ends_with("kubernetes.io");
        let quota = name.starts_with("requests.");
        if native || quota || !names::qualified_name(&format!("requests.{name}")).is_empty() {
            let detail = "must be a valid extended resource name";
            causes.invalid(path.child("extendedResourceName"), &name.into(), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::check;

    #[test]
    fn classes_say_which_devices() {
        check(
            &DEVICE_CLASS,
            json!({"spec": {"selectors": [{}, {"cel": {}}], "extendedResourceName": "gpu",
                "config": [{}, {"opaque": {"driver": "_", "parameters": 5}}]}}),
            expect![[r#"
                spec.selectors[0].cel: Required value
                spec.selectors[1].cel.expression: Required value
                spec.config[0].opaque: Required value
                spec.config[1].opaque.driver: Invalid value: "_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.config[1].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object
                spec.extendedResourceName: Invalid value: "gpu": must be a valid extended resource name"#]],
        );
    }
}
