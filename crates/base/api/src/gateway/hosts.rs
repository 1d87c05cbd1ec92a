//! Hosts, and `*.` with what hosts end in, which stands for one label or more.

/// Whether a host is one of those that `pattern` stands for; another pattern is if all of its hosts are.
#[must_use]
pub fn takes(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(rest) => host.len() > rest.len() && host.ends_with(rest),
        None => pattern == host,
    }
}

/// The hosts, in lower case, that a listener and a route have in common; `""` stands for every host. Each
/// names none if it takes all.
#[must_use]
pub fn common(listener: Option<&str>, route: &[String]) -> Vec<String> {
    let listener = listener.unwrap_or_default().to_ascii_lowercase();
    if route.is_empty() {
        return vec![listener];
    }
    let both = |host: &String| {
        let host = host.to_ascii_lowercase();
        if listener.is_empty() || takes(&listener, &host) {
            return Some(host);
        }
        takes(&host, &listener).then(|| listener.clone())
    };
    let mut hosts: Vec<String> = route.iter().filter_map(both).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listener: &str, route: &[&str], expected: &[&str]) {
        let listener = (!listener.is_empty()).then_some(listener);
        let route: Vec<String> = route.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(common(listener, &route), expected);
    }

    #[test]
    fn what_both_name_is_common() {
        check("", &[], &[""]);
        check("", &["b.test", "*.a.test"], &["*.a.test", "b.test"]);
        check("a.test", &[], &["a.test"]);
        check("a.test", &["A.test", "b.test"], &["a.test"]);
        check(
            "*.test",
            &["a.test", "x.a.test", "test", "*.b.test", "other"],
            &["*.b.test", "a.test", "x.a.test"],
        );
        check("x.a.test", &["*.test", "*.a.test"], &["x.a.test"]);
        check("*.a.test", &["*.test"], &["*.a.test"]);
        check("*.test", &["*.test"], &["*.test"]);
        check("a.test", &["b.test"], &[]);
    }
}
