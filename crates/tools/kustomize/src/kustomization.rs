//! The file `kustomization.yaml`: its fields, and those that are refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

type Strings = BTreeMap<String, String>;

/// All fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Kustomization {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Of the kustomization itself; nothing depends on it.
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,

    pub(crate) resources: Vec<String>,
    pub(crate) bases: Vec<String>,
    pub(crate) components: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) name_prefix: String,
    pub(crate) name_suffix: String,
    pub(crate) common_labels: Strings,
    pub(crate) labels: Vec<Label>,
    pub(crate) common_annotations: Strings,
    pub(crate) images: Vec<Image>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) config_map_generator: Vec<Generator>,
    pub(crate) secret_generator: Vec<Generator>,
    pub(crate) generator_options: GeneratorOptions,
    pub(crate) patches: Vec<Patch>,
    pub(crate) patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub(crate) patches_json_6902: Vec<Patch>,
    pub(crate) replacements: Vec<Replacement>,
    pub(crate) sort_options: Option<SortOptions>,

    build_metadata: Value,
    configurations: Value,
    crds: Value,
    generators: Value,
    helm_chart_inflation_generator: Value,
    helm_charts: Value,
    helm_globals: Value,
    image_tags: Value,
    openapi: Value,
    transformers: Value,
    validators: Value,
    vars: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Label {
    pub(crate) pairs: Strings,
    pub(crate) include_selectors: bool,
    pub(crate) include_templates: bool,
    pub(crate) fields: Vec<LabelField>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LabelField {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) create: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) new_name: String,
    pub(crate) new_tag: String,
    pub(crate) digest: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) count: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Generator {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) behavior: String,
    pub(crate) literals: Vec<String>,
    pub(crate) files: Vec<String>,
    pub(crate) envs: Vec<String>,
    pub(crate) env: String,
    /// Of a Secret.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) options: GeneratorOptions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GeneratorOptions {
    pub(crate) labels: Strings,
    pub(crate) annotations: Strings,
    pub(crate) disable_name_suffix_hash: bool,
    pub(crate) immutable: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Patch {
    pub(crate) patch: String,
    pub(crate) path: String,
    pub(crate) target: Option<Selector>,
    pub(crate) options: PatchOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PatchOptions {
    pub(crate) allow_name_change: bool,
    pub(crate) allow_kind_change: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Selector {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) label_selector: String,
    pub(crate) annotation_selector: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Replacement {
    /// A file with replacements, in place of all else.
    pub(crate) path: String,
    pub(crate) source: Option<Source>,
    pub(crate) source_value: Option<String>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) field_path: String,
    pub(crate) options: FieldOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) select: Option<Selector>,
    pub(crate) reject: Vec<Selector>,
    pub(crate) field_paths: Vec<String>,
    pub(crate) options: FieldOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FieldOptions {
    pub(crate) delimiter: String,
    pub(crate) index: i64,
    pub(crate) create: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SortOptions {
    pub(crate) order: String,
    pub(crate) legacy_sort_options: Option<LegacySortOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LegacySortOptions {
    pub(crate) order_first: Vec<String>,
    pub(crate) order_last: Vec<String>,
}

/// Reads a kustomization, and refuses what is not done.
pub(crate) fn parse(file: &str, text: &str) -> Result<Kustomization, Error> {
    let read: Option<Kustomization> = serde_saphyr::from_str(text)
        .map_err(|error| Error::new(file, "kustomization", error.without_snippet().to_string()))?;
    let Some(mut it) = read else {
        return Err(Error::new(file, "kustomization", "the file is empty: name resources in it"));
    };
    it.check(file)?;
    it.resources.append(&mut it.bases);
    Ok(it)
}

impl Kustomization {
    pub(crate) fn is_component(&self) -> bool {
        self.kind == "Component"
    }

    fn check(&self, file: &str) -> Result<(), Error> {
        let version = match self.kind.as_str() {
            "" | "Kustomization" => "kustomize.config.k8s.io/v1beta1",
            "Component" => "kustomize.config.k8s.io/v1alpha1",
            other => {
                let problem = format!("`{other}` is neither Kustomization nor Component");
                return Err(Error::new(file, "kind", problem));
            }
        };
        if !self.api_version.is_empty() && self.api_version != version {
            let problem = format!("`{}` should be `{version}`", self.api_version);
            return Err(Error::new(file, "apiVersion", problem));
        }
        let refused = [
            ("buildMetadata", &self.build_metadata, "leave it out"),
            ("configurations", &self.configurations, "use patches or replacements"),
            ("crds", &self.crds, "leave it out; names in custom objects are not rewritten"),
            ("generators", &self.generators, "use configMapGenerator or secretGenerator"),
            ("helmChartInflationGenerator", &self.helm_chart_inflation_generator, HELM),
            ("helmCharts", &self.helm_charts, HELM),
            ("helmGlobals", &self.helm_globals, HELM),
            ("imageTags", &self.image_tags, "use images"),
            ("openapi", &self.openapi, "leave it out; lists of custom objects are replaced whole"),
            ("transformers", &self.transformers, "use patches, labels or replacements"),
            ("validators", &self.validators, "leave it out; the cluster validates"),
            ("vars", &self.vars, "use replacements"),
        ];
        for (field, value, instead) in refused {
            let empty = match value {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            };
            if !empty {
                return Err(Error::new(file, field, format!("this is not done here: {instead}")));
            }
        }
        Ok(())
    }
}

/// What to do in place of Helm's fields.
const HELM: &str = "render the chart with `helm template` into a file, and name that in resources";
