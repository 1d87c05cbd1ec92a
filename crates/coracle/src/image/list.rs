//! What images are here, and what one of them is.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use ::image::{ImageConfig, Reference, Store, store::Named};
use serde_json::{Value, json};

use super::{find, shown};
use crate::{cli::Format, output};

/// Lists all names.
pub(super) fn ls(store: &Store, format: Format) -> anyhow::Result<ExitCode> {
    let named = store.list()?;
    match format {
        Format::Json => {
            let rows: Vec<Value> = named.iter().map(|it| entry(store, it)).collect();
            output::line(&Value::from(rows).to_string())?;
        }
        Format::Text => {
            let head = ["NAME", "DIGEST", "SIZE", "USED"].map(str::to_owned).to_vec();
            let rows = named.iter().map(|it| row(store, it));
            let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
            output::line(&output::table(&rows))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(store: &Store, named: &Named) -> Vec<String> {
    let name =
        named.name.parse::<Reference>().map_or_else(|_| named.name.clone(), |it| it.familiar());
    let digest: String = named.target.digest.hex().chars().take(shown::HEX_DIGITS).collect();
    let (size, used) = match store.size_and_use(named) {
        Ok((size, used)) => (shown::size(size), shown::age(used.elapsed().unwrap_or_default())),
        // The list goes on: one bad image must not hide the others.
        Err(error) => (error.to_string(), String::new()),
    };
    vec![name, digest, size, used]
}

fn entry(store: &Store, named: &Named) -> Value {
    let (name, digest) = (&named.name, named.target.digest);
    match store.size_and_use(named) {
        Ok((size, used)) => {
            let since = used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            json!({"name": name, "digest": digest, "size": size, "usedAt": since.as_secs()})
        }
        Err(error) => json!({"name": name, "digest": digest, "problem": error.to_string()}),
    }
}

/// Shows one image.
pub(super) fn inspect(store: &Store, name: &str) -> anyhow::Result<ExitCode> {
    let image = find(store, name)?;
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|it| json!({"digest": it.digest, "diffId": it.diff_id, "size": it.size}))
        .collect();
    let ImageConfig { created, architecture, os, config, history, .. } = &image.config;
    let shown = json!({
        "name": name.parse::<Reference>()?.to_string(),
        "digest": image.target.digest,
        "manifest": image.manifest,
        "id": image.id,
        "created": created,
        "architecture": architecture,
        "os": os,
        "config": config,
        "history": history,
        "layers": layers,
        "size": image.size(),
    });
    output::line(&serde_json::to_string_pretty(&shown)?)?;
    Ok(ExitCode::SUCCESS)
}
