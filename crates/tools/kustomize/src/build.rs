//! A whole build: what a kustomization names is read, made and changed, in kustomize's order.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::{
    edit,
    error::Error,
    files::{self, FILE_BYTES_MAX, Files},
    generate::{self, Kind},
    kustomization::{self, Kustomization, Patch, PatchOptions, Replacement, Selector},
    merge::Schema,
    order,
    patch::{self, Text},
    references, replace,
    resource::Resource,
};

/// Deepest that kustomizations may be one in another.
const DEPTH_MAX: usize = 64;

/// Most kustomizations in one build; the same one counts as often as it is named.
const KUSTOMIZATIONS_MAX: usize = 10_000;

/// Most objects in one build.
const OBJECTS_MAX: usize = 100_000;

/// Objects with this annotation, if it is not `false`, are for kustomize only.
const LOCAL: &str = "config.kubernetes.io/local-config";

/// Numbers below this are whole without loss.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// One object of a build.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The object.
    pub value: Value,
    /// The file it came from: a manifest, or the kustomization that made it.
    pub file: String,
}

/// Builds the kustomization in `folder`.
pub fn build(files: &dyn Files, folder: &str, schema: &dyn Schema) -> Result<Vec<Built>, Error> {
    let folder = files::join(".", folder);
    let mut builder = Builder { files, schema, kustomizations: 0, within: Vec::new() };
    let (mut resources, file, kustomization) = builder.kustomization(&folder, None, &folder)?;
    generate::add_hashes(&mut resources);
    references::fix(&mut resources).map_err(|it| Error::new(&file, "resources", it))?;
    resources.retain(|it| !is_local(&it.value));
    for resource in &mut resources {
        text_annotations(&mut resource.value);
    }
    order::sort(&mut resources, kustomization.sort_options.as_ref())
        .map_err(|it| Error::new(&file, "sortOptions", it))?;
    Ok(resources.into_iter().map(|it| Built { value: it.value, file: it.file }).collect())
}

/// Annotations are texts, even those that look like numbers.
fn text_annotations(value: &mut Value) {
    let annotations = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    for annotation in annotations.into_iter().flat_map(|it| it.values_mut()) {
        if annotation.is_number() || annotation.is_boolean() {
            *annotation = json!(annotation.to_string());
        }
    }
}

fn is_local(value: &Value) -> bool {
    let annotation = value.get("metadata").and_then(|it| it.get("annotations")?.get(LOCAL));
    annotation.is_some_and(|it| it != "false")
}

struct Builder<'a> {
    files: &'a dyn Files,
    schema: &'a dyn Schema,
    kustomizations: usize,
    /// The folders that are being built, the outermost first.
    within: Vec<String>,
}

/// What a kustomization became, its file and what that says.
type Done = (Vec<Resource>, String, Kustomization);

impl Builder<'_> {
    /// Builds a folder; on top of `resources`, if it is a component. `from` is for messages.
    fn kustomization(
        &mut self,
        folder: &str,
        resources: Option<Vec<Resource>>,
        from: &str,
    ) -> Result<Done, Error> {
        let found = files::find(self.files, folder)
            .map_err(|error| Error::new(from, folder, format!("read the folder: {error}")))?;
        let file = match found.as_slice() {
            [file] => file.clone(),
            [] => return Err(Error::new(from, folder, "the folder has no kustomization.yaml")),
            [one, two, ..] => {
                let problem = format!("`{one}` and `{two}` are there: remove one of them");
                return Err(Error::new(from, folder, problem));
            }
        };
        self.kustomizations += 1;
        if self.kustomizations > KUSTOMIZATIONS_MAX {
            let problem = format!("over {KUSTOMIZATIONS_MAX} kustomizations are named");
            return Err(Error::new(from, folder, problem));
        }
        if self.within.len() == DEPTH_MAX {
            let problem = format!("kustomizations are nested deeper than {DEPTH_MAX} levels");
            return Err(Error::new(from, folder, problem));
        }
        let bytes =
            self.file(folder, &file).map_err(|it| Error::new(&file, "kustomization", it))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::new(&file, "kustomization", "the file is not UTF-8"))?;
        let kustomization = kustomization::parse(&file, &text)?;
        if kustomization.is_component() != resources.is_some() {
            let (is, list) = match resources {
                Some(_) => ("no Component", "resources"),
                None => ("a Component", "components"),
            };
            return Err(Error::new(&file, "kind", format!("this is {is}: name it in `{list}`")));
        }
        self.within.push(folder.to_owned());
        let scope = Scope { folder, file: &file };
        let resources = self.contents(&scope, &kustomization, resources.unwrap_or_default())?;
        self.within.pop();
        Ok((resources, file, kustomization))
    }

    fn contents(
        &mut self,
        scope: &Scope<'_>,
        kustomization: &Kustomization,
        mut resources: Vec<Resource>,
    ) -> Result<Vec<Resource>, Error> {
        for path in &kustomization.resources {
            let more = self.resource(scope, path)?;
            resources.extend(more);
            if resources.len() > OBJECTS_MAX {
                return Err(scope.error("resources", format!("over {OBJECTS_MAX} objects")));
            }
            edit::unique(&resources).map_err(|it| scope.error("resources", it))?;
        }
        let generators = [
            ("configMapGenerator", Kind::ConfigMap, &kustomization.config_map_generator),
            ("secretGenerator", Kind::Secret, &kustomization.secret_generator),
        ];
        for (field, kind, all) in generators {
            for (index, generator) in all.iter().enumerate() {
                let read = |path: &str| self.file(scope.folder, &files::join(scope.folder, path));
                let options = &kustomization.generator_options;
                generate::generate(kind, generator, options, scope.file, &read)
                    .and_then(|new| generate::absorb(&mut resources, new))
                    .map_err(|it| scope.error(&format!("{field}[{index}]"), it))?;
            }
        }
        for path in &kustomization.components {
            self.check_folder(scope, "components", path)?;
            let folder = files::join(scope.folder, path);
            (resources, _, _) = self.kustomization(&folder, Some(resources), scope.file)?;
        }
        self.change(scope, kustomization, &mut resources)?;
        Ok(resources)
    }

    fn resource(&mut self, scope: &Scope<'_>, path: &str) -> Result<Vec<Resource>, Error> {
        let whole = files::join(scope.folder, path);
        if !files::is_remote(path) && !self.files.is_folder(&whole) {
            let documents =
                self.documents(scope, path).map_err(|it| scope.error("resources", it))?;
            let resources =
                objects(documents, &whole).map_err(|it| Error::new(&whole, "metadata", it))?;
            return Ok(resources);
        }
        self.check_folder(scope, "resources", path)?;
        Ok(self.kustomization(&whole, None, scope.file)?.0)
    }

    fn check_folder(&self, scope: &Scope<'_>, field: &str, path: &str) -> Result<(), Error> {
        if files::is_remote(path) {
            let problem = format!(
                "`{path}` is on another machine, and nothing is fetched: put a copy beside this file"
            );
            return Err(scope.error(field, problem));
        }
        let folder = files::join(scope.folder, path);
        if !self.files.is_folder(&folder) {
            return Err(scope.error(field, format!("there is no folder `{folder}`")));
        }
        let around = |it: &String| files::inside(&folder, it);
        if self.within.iter().any(around) {
            let problem = format!("`{path}` is the folder itself or around it: a cycle");
            return Err(scope.error(field, problem));
        }
        Ok(())
    }

    /// A file of the kustomization in `folder`, which must be there or below it.
    fn file(&self, folder: &str, path: &str) -> Result<Vec<u8>, String> {
        if !files::inside(folder, path) {
            return Err(format!("`{path}` is not below `{folder}`, as kustomize wants of files"));
        }
        let read = self.files.read(path).map_err(|error| format!("read `{path}`: {error}"))?;
        let bytes = read.ok_or_else(|| format!("there is no file `{path}`"))?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(format!("`{path}` is larger than {FILE_BYTES_MAX} bytes"));
        }
        Ok(bytes)
    }

    fn documents(&self, scope: &Scope<'_>, path: &str) -> Result<Vec<Value>, String> {
        let path = files::join(scope.folder, path);
        let bytes = self.file(scope.folder, &path)?;
        let text = String::from_utf8(bytes).map_err(|_| format!("`{path}` is not UTF-8"))?;
        documents(&text).map_err(|it| format!("`{path}`: {it}"))
    }

    fn change(
        &self,
        scope: &Scope<'_>,
        kustomization: &Kustomization,
        resources: &mut Vec<Resource>,
    ) -> Result<(), Error> {
        for (index, path) in kustomization.patches_strategic_merge.iter().enumerate() {
            // The text itself may stand where a path is meant.
            let inline = path.contains('\n');
            let documents = if inline { documents(path) } else { self.documents(scope, path) };
            let apply = |documents| {
                let text = Text::parse(documents)?;
                patch::apply(resources, text, None, &PatchOptions::default(), self.schema)
            };
            let field = format!("patchesStrategicMerge[{index}]");
            documents.and_then(apply).map_err(|it| scope.error(&field, it))?;
        }
        self.patch_all(scope, "patches", &kustomization.patches, resources)?;
        if !kustomization.namespace.is_empty() {
            edit::namespace(resources, &kustomization.namespace)
                .map_err(|it| scope.error("namespace", it))?;
        }
        edit::names(resources, &kustomization.name_prefix, "");
        edit::names(resources, "", &kustomization.name_suffix);
        for (index, label) in kustomization.labels.iter().enumerate() {
            edit::label(resources, label)
                .map_err(|it| scope.error(&format!("labels[{index}]"), it))?;
        }
        edit::common_labels(resources, &kustomization.common_labels)
            .map_err(|it| scope.error("commonLabels", it))?;
        edit::common_annotations(resources, &kustomization.common_annotations)
            .map_err(|it| scope.error("commonAnnotations", it))?;
        self.patch_all(scope, "patchesJson6902", &kustomization.patches_json_6902, resources)?;
        for (index, replica) in kustomization.replicas.iter().enumerate() {
            edit::replicas(resources, replica)
                .map_err(|it| scope.error(&format!("replicas[{index}]"), it))?;
        }
        for (index, image) in kustomization.images.iter().enumerate() {
            edit::image(resources, image)
                .map_err(|it| scope.error(&format!("images[{index}]"), it))?;
        }
        for (index, replacement) in kustomization.replacements.iter().enumerate() {
            self.replace(scope, replacement, resources)
                .map_err(|it| scope.error(&format!("replacements[{index}]"), it))?;
        }
        edit::unique(resources).map_err(|it| scope.error("resources", it))
    }

    fn patch_all(
        &self,
        scope: &Scope<'_>,
        field: &str,
        patches: &[Patch],
        resources: &mut Vec<Resource>,
    ) -> Result<(), Error> {
        for (index, patch) in patches.iter().enumerate() {
            let documents = match (patch.patch.trim(), patch.path.as_str()) {
                ("", "") => Err("give `patch` or `path`".to_owned()),
                ("", path) => self.documents(scope, path),
                (text, "") => documents(text),
                _ => Err("give `patch` or `path`, not both".to_owned()),
            };
            let target: Option<&Selector> = patch.target.as_ref();
            let mut apply = |documents| {
                patch::apply(
                    resources,
                    Text::parse(documents)?,
                    target,
                    &patch.options,
                    self.schema,
                )
            };
            documents
                .and_then(&mut apply)
                .map_err(|it| scope.error(&format!("{field}[{index}]"), it))?;
        }
        Ok(())
    }

    fn replace(
        &self,
        scope: &Scope<'_>,
        replacement: &Replacement,
        resources: &mut [Resource],
    ) -> Result<(), String> {
        if replacement.path.is_empty() {
            return replace::apply(resources, replacement);
        }
        for document in self.documents(scope, &replacement.path)? {
            let all = if document.is_array() { document } else { json!([document]) };
            let all: Vec<Replacement> = serde_json::from_value(all)
                .map_err(|error| format!("`{}`: {error}", replacement.path))?;
            for replacement in &all {
                if !replacement.path.is_empty() {
                    return Err(format!("`{}` names another file", replacement.path));
                }
                replace::apply(resources, replacement)?;
            }
        }
        Ok(())
    }
}

/// Where a kustomization is.
struct Scope<'a> {
    folder: &'a str,
    file: &'a str,
}

impl Scope<'_> {
    fn error(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::new(self.file, field, problem)
    }
}

/// All documents of a file that are not empty.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    // `defaultMode: 0400` is octal for kubectl, too.
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| error.without_snippet().to_string())?;
    let mut documents: Vec<Value> = documents.into_iter().filter(|it| !it.is_null()).collect();
    documents.iter_mut().for_each(whole_numbers);
    Ok(documents)
}

/// Writes `1.0` and `1e3` as the whole numbers they are.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < WHOLE_MAX);
            if let Some(whole) = whole.and_then(|it| format!("{it:.0}").parse::<i64>().ok()) {
                *number = whole.into();
            }
        }
        _ => {}
    }
}

/// The objects of documents. Those in lists come behind all others, as kustomize has it.
fn objects(documents: Vec<Value>, file: &str) -> Result<Vec<Resource>, String> {
    let mut waiting: VecDeque<Value> = documents.into();
    let mut resources = Vec::new();
    while let Some(mut document) = waiting.pop_front() {
        let text = |it: &str| document.pointer(it).and_then(Value::as_str).unwrap_or_default();
        let kind = text("/kind").to_owned();
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            let list = kind.ends_with("List") && document.get("items").is_some();
            if text(field).is_empty() && !list {
                let field = field.trim_start_matches('/').replace('/', ".");
                let kind = if kind.is_empty() { "an object" } else { &kind };
                return Err(format!("{kind} has no `{field}`"));
            }
        }
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if kind.ends_with("List") => waiting.extend(items),
            Some(items) => {
                if let Some(fields) = document.as_object_mut() {
                    fields.insert("items".to_owned(), items);
                }
                resources.push(Resource::new(document, file));
            }
            None => resources.push(Resource::new(document, file)),
        }
    }
    Ok(resources)
}
