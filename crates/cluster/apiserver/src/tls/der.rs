//! Just enough of X.509 in DER to read who a certificate names and until when it holds. Whether it
//! can be trusted is rustls' business.

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// CN of the subject.
    pub(super) common_name: String,
    /// O of the subject, each.
    pub(super) organizations: Vec<String>,
    /// End of its validity, as written: `YYYYMMDDhhmmssZ`.
    pub(super) not_after: String,
}

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
/// `[0] EXPLICIT`: the version.
const VERSION: u8 = 0xa0;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// Reads a certificate; `None` if it is none.
pub(super) fn certificate(der: &[u8]) -> Option<Certificate> {
    let (_, certificate, _) = item(der)?;
    let (_, mut rest, _) = item(certificate)?;
    if let (VERSION, _, after) = item(rest)? {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        (_, _, rest) = item(rest)?;
    }
    let (_, validity, rest) = item(rest)?;
    let (_, _, validity) = item(validity)?;
    let (tag, not_after, _) = item(validity)?;
    let not_after = std::str::from_utf8(not_after).ok()?;
    let (SEQUENCE, mut subject, _) = item(rest)? else { return None };
    let mut result = Certificate { not_after: full_year(tag, not_after), ..Certificate::default() };
    while let Some((_, mut set, after)) = item(subject) {
        subject = after;
        while let Some((SEQUENCE, attribute, after)) = item(set) {
            set = after;
            let (OBJECT_ID, id, value) = item(attribute)? else { return None };
            let (_, value, _) = item(value)?;
            let value = std::str::from_utf8(value).ok()?.to_owned();
            match id {
                COMMON_NAME => result.common_name = value,
                ORGANIZATION => result.organizations.push(value),
                _ => {}
            }
        }
    }
    Some(result)
}

/// `UTCTime` has two digits for the year: 50 and more mean 19xx (RFC 5280, 4.1.2.5.1).
fn full_year(tag: u8, time: &str) -> String {
    match (tag, time.as_bytes()) {
        (UTC_TIME, [b'5'..=b'9', ..]) => format!("19{time}"),
        (UTC_TIME, _) => format!("20{time}"),
        _ => time.to_owned(),
    }
}

/// Splits tag and content of the first item from what follows it.
fn item(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, it| (sum << 8) | usize::from(*it)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_rcgen_writes() {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2036, 2, 3);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        params.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes-admin");
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap();
        let found = certificate(der.der()).unwrap();
        assert_eq!(found.common_name, "kubernetes-admin");
        assert_eq!(found.organizations, ["system:masters"]);
        assert_eq!(found.not_after, "20360203000000Z");
    }

    proptest! {
        #[test]
        fn nothing_panics(der in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(certificate(&der));
        }
    }
}
