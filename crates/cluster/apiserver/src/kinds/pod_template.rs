//! PodTemplates: templates of pods on their own.

use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    pod_spec, pods_by_template,
    print::{self, NAME, column},
    value::Read,
};

pub(super) static POD_TEMPLATE: Kind = Kind {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    schema: "io.k8s.api.core.v1.PodTemplate",
    generation: true,
    default: pods_by_template::default,
    warnings: |it| pod_spec::warnings(it.field("template"), "template."),
    warnings_on_update: Some(|it| pod_spec::warnings(it.field("template"), "template.")),
    validate,
    columns: COLUMNS,
    row: |it, _| {
        let [names, images] = print::containers(it.at(&["template", "spec"]));
        let labels = print::labels(it.at(&["template", "metadata", "labels"]));
        vec![print::name(it), names.into(), images.into(), labels.into()]
    },
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Containers", "Names of the containers."),
    column("Images", "Images of the containers."),
    column("Pod Labels", "Labels of the pods."),
];

fn validate(template: &Value, causes: &mut Causes) {
    pod_spec::any_template(template.field("template"), Path::new("template"), causes);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    #[test]
    fn pods_are_checked() {
        check(
            &POD_TEMPLATE,
            json!({"template": {"spec": {"containers": [{"name": "A"}]}}}),
            expect![[r#"
                template.spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
                template.spec.containers[0].image: Required value"#]],
        );
        check_row(&POD_TEMPLATE, json!({}), expect!["a | c | app:v1 | app=a"]);
    }
}
