//! Which ranges a cluster has: chosen when it is made, so that none hides a part of the host's network
//! from its pods. A clash that comes later is found here, too.

use std::net::Ipv4Addr;

use crate::addresses::{Addresses, Prefix, Subnet};

/// What a new cluster's pods may have, the first that is free: what most clusters have, its neighbours,
/// and, for hosts with a VPN that has all of 10.0.0.0/8, two from elsewhere. The last one is for
/// measuring networks (RFC 2544), and so is nobody's.
const PODS: [Subnet; 10] = [
    range(10, 244),
    range(10, 245),
    range(10, 246),
    range(10, 247),
    range(10, 240),
    range(10, 241),
    range(10, 242),
    range(10, 243),
    range(172, 30),
    range(198, 18),
];

/// The same for cluster addresses of Services: of 10.96.0.0/12, which is Kubernetes' own default.
const SERVICES: [Subnet; 10] = [
    range(10, 96),
    range(10, 97),
    range(10, 98),
    range(10, 99),
    range(10, 100),
    range(10, 101),
    range(10, 102),
    range(10, 103),
    range(172, 31),
    range(198, 19),
];

/// The largest range that can be asked for, as a prefix: the widest private one.
const PREFIX_MIN: u8 = 8;
/// The smallest one: some 250 pods or Services.
const PREFIX_MAX: u8 = 24;

/// Routes to more than this say where the world is, not where somebody is: a VPN that takes everything
/// has one to each half of it.
const WORLD_PREFIX: u8 = 7;

const fn range(first: u8, second: u8) -> Subnet {
    Subnet { address: Ipv4Addr::new(first, second, 0, 0), prefix: 16 }
}

/// A range that somebody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The range.
    pub range: Subnet,
    /// Who, for people: `the host's route over tun0`.
    pub by: String,
}

/// What is asked for by hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The pods' range.
    pub pods: Option<Subnet>,
    /// That of Services.
    pub services: Option<Subnet>,
    /// What IPv6 addresses are to begin with. None is chosen here: what is random comes from outside.
    pub v6: Option<Prefix>,
}

/// Why what is asked for cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// Too large or too small.
    #[error("range `{0}` is of no use: from /{PREFIX_MIN} to /{PREFIX_MAX}, please")]
    Size(Subnet),
    /// No address may be both a pod's and a Service's.
    #[error("ranges `{pods}` of pods and `{services}` of Services overlap")]
    Overlap {
        /// The pods' range.
        pods: Subnet,
        /// That of Services.
        services: Subnet,
    },
}

/// The ranges of a new cluster: those asked for, and for the rest the first candidate that overlaps
/// nothing in `taken`. When every candidate does, the first: most of what pods want is elsewhere, and
/// what they miss is said on the Node.
///
/// # Errors
/// If what is asked for makes no sense. That it is taken is not an error: whoever asks may know better.
pub fn choose(wish: Wish, taken: &[Taken]) -> Result<Addresses, WishError> {
    for range in wish.pods.into_iter().chain(wish.services) {
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&range.prefix) {
            return Err(WishError::Size(range));
        }
    }
    let services = wish.services.unwrap_or_else(|| first_free(&SERVICES, wish.pods, taken));
    let pods = wish.pods.unwrap_or_else(|| first_free(&PODS, Some(services), taken));
    if pods.overlaps(services) {
        return Err(WishError::Overlap { pods, services });
    }
    Ok(Addresses { pods, services, v6: wish.v6 })
}

fn first_free(candidates: &[Subnet], other: Option<Subnet>, taken: &[Taken]) -> Subnet {
    let apart = |it: &&Subnet| other.is_none_or(|other| !it.overlaps(other));
    let apart: Vec<Subnet> = candidates.iter().filter(apart).copied().collect();
    let free = apart.iter().find(|it| overlapping(**it, taken).is_none());
    // A range by hand that overlaps all candidates is refused by the caller.
    free.or(apart.first()).or(candidates.first()).copied().unwrap_or(Addresses::default().pods)
}

/// The largest range in `taken` that has an address of `range`.
fn overlapping(range: Subnet, taken: &[Taken]) -> Option<&Taken> {
    let concerns = |it: &&Taken| WORLD_PREFIX < it.range.prefix && it.range.overlaps(range);
    taken.iter().filter(concerns).min_by_key(|it| it.range.prefix)
}

/// What is wrong with the ranges of a cluster beside `taken`, for people; nothing, if nothing is.
#[must_use]
pub(crate) fn clash(addresses: &Addresses, taken: &[Taken]) -> Option<String> {
    let of = |whose, range| {
        let Taken { range: other, by } = overlapping(range, taken)?;
        Some(format!("the range {range} of {whose} overlaps {other}, {by}"))
    };
    let clashes = [of("pods", addresses.pods), of("Services", addresses.services)];
    let clashes: Vec<String> = clashes.into_iter().flatten().collect();
    if clashes.is_empty() {
        return None;
    }
    let clashes = clashes.join("; ");
    Some(format!("{clashes}: pods do not reach what the host reaches there"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn taken(ranges: &[&str]) -> Vec<Taken> {
        let by = || "the host's route over tun0".to_owned();
        ranges.iter().map(|it| Taken { range: it.parse().unwrap(), by: by() }).collect()
    }

    fn check(wish: &str, ranges: &[&str], expected: Expect) {
        let range = |word| {
            let value = wish.split(' ').find_map(|it: &str| it.strip_prefix(word))?;
            Some(value.parse().unwrap())
        };
        let wish = Wish { pods: range("pods="), services: range("services="), v6: None };
        let taken = taken(ranges);
        expected.assert_eq(&match choose(wish, &taken) {
            Ok(it) => format!("{} {} {:?}", it.pods, it.services, clash(&it, &taken)),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn what_the_host_has_is_avoided() {
        check("", &["192.0.2.0/24"], expect!["10.244.0.0/16 10.96.0.0/16 None"]);
        let one = &["10.244.7.0/24", "10.96.0.0/12"];
        check("", one, expect!["10.245.0.0/16 172.31.0.0/16 None"]);
        check("", &["10.0.0.0/8"], expect!["172.30.0.0/16 172.31.0.0/16 None"]);
        // The halves of the world are nobody's.
        check("", &["0.0.0.0/1", "128.0.0.0/1"], expect!["10.244.0.0/16 10.96.0.0/16 None"]);
    }

    #[test]
    fn where_all_is_taken_the_first_is_used() {
        let all = &["10.0.0.0/8", "172.16.0.0/12", "198.18.0.0/15"];
        check(
            "",
            all,
            expect![[
                r#"10.244.0.0/16 10.96.0.0/16 Some("the range 10.244.0.0/16 of pods overlaps 10.0.0.0/8, the host's route over tun0; the range 10.96.0.0/16 of Services overlaps 10.0.0.0/8, the host's route over tun0: pods do not reach what the host reaches there")"#
            ]],
        );
    }

    #[test]
    fn what_is_asked_for_is_had() {
        check("pods=10.96.0.0/16", &[], expect!["10.96.0.0/16 10.97.0.0/16 None"]);
        let both = "pods=10.1.0.0/16 services=10.2.0.0/24";
        check(
            both,
            &["10.2.0.0/24"],
            expect![[
                r#"10.1.0.0/16 10.2.0.0/24 Some("the range 10.2.0.0/24 of Services overlaps 10.2.0.0/24, the host's route over tun0: pods do not reach what the host reaches there")"#
            ]],
        );
        check("pods=10.0.0.0/8", &[], expect!["10.0.0.0/8 172.31.0.0/16 None"]);
        check(
            "pods=10.1.0.0/16 services=10.1.0.0/24",
            &[],
            expect!["ranges `10.1.0.0/16` of pods and `10.1.0.0/24` of Services overlap"],
        );
        check(
            "services=10.1.0.0/28",
            &[],
            expect!["range `10.1.0.0/28` is of no use: from /8 to /24, please"],
        );
    }

    proptest! {
        #[test]
        fn what_is_chosen_overlaps_nothing_if_anything_is_free(
            routes in prop::collection::vec((any::<[u8; 2]>(), 8_u8..=32), 0..6),
        ) {
            let routes = routes.into_iter().map(|([second, third], prefix)| {
                let range = Subnet { address: Ipv4Addr::new(10, second, third, 0), prefix };
                let range = Subnet { address: range.address & range.mask(), prefix };
                Taken { range, by: String::new() }
            });
            let taken: Vec<Taken> = routes.collect();
            let chosen = choose(Wish::default(), &taken).unwrap();
            prop_assert!(!chosen.pods.overlaps(chosen.services));
            prop_assert_eq!(clash(&chosen, &taken), None);
        }
    }
}
