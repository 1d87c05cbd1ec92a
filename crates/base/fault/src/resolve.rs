//! From `host:port` to addresses: numbers, `localhost` and what `/etc/hosts` has. It asks no name
//! server: a fault proxy stands between programs of one machine or of one network that a test made.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const HOSTS: &str = "/etc/hosts";

/// Host and port of `address`, whether or not the host is known.
pub(crate) fn split(address: &str) -> io::Result<(&str, u16)> {
    let (host, port) =
        address.rsplit_once(':').ok_or_else(|| invalid(address, "no port; host:port"))?;
    let port = port.parse().map_err(|_| invalid(address, "the port is no number below 65536"))?;
    Ok((host, port))
}

fn invalid(address: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("`{address}`: {what}"))
}

/// The addresses of `address`, at least one. An empty host means all of this machine.
pub(crate) fn addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = split(address)?;
    let ips = match host {
        "" => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        name => named(name, &fs::read_to_string(HOSTS).unwrap_or_default()),
    };
    if ips.is_empty() {
        return Err(invalid(address, "neither an address nor a name of /etc/hosts"));
    }
    Ok(ips.into_iter().map(|it| SocketAddr::new(it, port)).collect())
}

/// Whether both mean the same.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let first = |it| addresses(it).ok().and_then(|it| it.first().copied());
    one == other || first(one).is_some_and(|it| first(other) == Some(it))
}

/// What `hosts` says of `name`.
fn named(name: &str, hosts: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        words.any(|it| it.eq_ignore_ascii_case(name)).then_some(ip)
    };
    hosts.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(address: &str, expected: Expect) {
        let seen = match addresses(address) {
            Ok(addresses) => format!("{addresses:?}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&seen);
    }

    #[test]
    fn what_users_write() {
        check("127.0.0.1:80", expect!["[127.0.0.1:80]"]);
        check("[::1]:80", expect!["[[::1]:80]"]);
        check(":80", expect!["[0.0.0.0:80]"]);
        check("localhost:80", expect!["[127.0.0.1:80, [::1]:80]"]);
        check("127.0.0.1", expect!["`127.0.0.1`: no port; host:port"]);
        check("localhost:http", expect!["`localhost:http`: the port is no number below 65536"]);
        check(
            "nowhere.invalid:80",
            expect!["`nowhere.invalid:80`: neither an address nor a name of /etc/hosts"],
        );
    }

    #[test]
    fn names_of_the_hosts_file() {
        let hosts = "# 10.0.0.9 db\n10.0.0.1 db.test db # main\n10.0.0.2 other\nfd00::1 DB";
        let seen = named("db", hosts);
        assert_eq!(seen, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }
}
