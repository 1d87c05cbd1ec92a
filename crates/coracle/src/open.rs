//! `coracle open`: a Service, an Ingress or an HTTPRoute in the browser.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};

use crate::{
    directories::Directories,
    output, session,
    urls::{self, Url},
};

/// Opens what is served under a web address whose object is called `name`, or `NAMESPACE/NAME`, and says the address. Where there
/// is no desktop, or with `only_say`, it is only said.
pub(crate) fn run(
    directories: &Directories,
    name: &str,
    only_say: bool,
) -> anyhow::Result<ExitCode> {
    let urls = session::run(directories, async |session| Ok(urls::all(&session).await))?;
    let Some(found) = choose(&urls, name) else {
        let known: Vec<&str> = urls.iter().map(|it| it.object.as_str()).collect();
        let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
        bail!("nothing called `{name}` has a web address on this machine; {known} has");
    };
    output::line(&found.url)?;
    if !only_say {
        browse(&found.url)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Of all objects with the name, what leads to others first: an Ingress or a route has the host that people
/// know.
fn choose<'a>(urls: &'a [Url], name: &str) -> Option<&'a Url> {
    let is_it = |it: &&Url| {
        let place = it.object.split_once(' ').map_or("", |(_, place)| place);
        place == name || place.rsplit('/').next() == Some(name)
    };
    let all = || urls.iter().filter(is_it);
    all().find(|it| !it.object.starts_with("Service ")).or_else(|| all().next())
}

/// What opens addresses on desktops is a program of freedesktop.org's.
fn browse(url: &str) -> anyhow::Result<()> {
    const OPENER: &str = "xdg-open";
    let mut command = Command::new(OPENER);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            output::note(&format!("`{OPENER}` is not there: open it by hand"));
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("start `{OPENER}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_others_comes_first() {
        let url = |url: &str, object: &str| Url { url: url.to_owned(), object: object.to_owned() };
        let urls = [
            url("http://web.shop.localhost/", "Service shop/web"),
            url("http://shop.localhost/", "Ingress shop/web"),
            url("http://api.localhost/", "Service default/api"),
        ];
        let chosen = |name| choose(&urls, name).map(|it| it.url.as_str());
        assert_eq!(chosen("web"), Some("http://shop.localhost/"));
        assert_eq!(chosen("shop/web"), Some("http://shop.localhost/"));
        assert_eq!(chosen("api"), Some("http://api.localhost/"));
        assert_eq!(chosen("shop"), None);
    }
}
