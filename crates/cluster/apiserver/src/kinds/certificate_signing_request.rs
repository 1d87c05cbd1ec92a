//! CertificateSigningRequests: somebody wants a certificate. Who it is, the request path knows.
//!
//! Of the request itself only the envelope is looked at; the signature is for the signer to check.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind, Subresource,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, keep, object_mut, remove, set},
};

pub(super) static CERTIFICATE_SIGNING_REQUEST: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    schema: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    subresources: &[Subresource::Status, Subresource::Approval],
    // Nobody comes with an approved request.
    prepare_create: |request| set(request, "status", json!({})),
    prepare_update: |new, old| {
        keep(new, "spec", old);
        keep(new, "status", old);
    },
    prepare_status: |new, old| keep(new, "spec", old),
    prepare_part: |_, new, old| {
        // An approval changes conditions and nothing else.
        let conditions = new.field("status").field("conditions").clone();
        keep(new, "spec", old);
        keep(new, "status", old);
        if let Some(status) = object_mut(new, "status") {
            set(status, "conditions", conditions);
            if status.field("conditions").is_null() {
                remove(status, "conditions");
            }
        }
    },
    validate,
    validate_update: |new, old, causes| {
        nothing_is_taken_back(new, old, causes);
        approval_stays(new, old, causes);
        let certificate = |it: &Value| it.field("status").text("certificate").to_owned();
        let before = certificate(old);
        if !before.is_empty() && before != certificate(new) {
            let detail = "updates may not modify existing certificate content";
            causes.forbidden("status.certificate", detail);
        }
    },
    validate_part: |_, new, old, causes| nothing_is_taken_back(new, old, causes),
    validate_name: |_, _| {},
    columns: COLUMNS,
    row,
    fields: |it, path| {
        (path == "spec.signerName").then(|| it.field("spec").text("signerName").to_owned())
    },
    unattended: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "Who is to sign."),
    column("Requestor", "Who asks."),
    column("RequestedDuration", "How long the certificate is to last."),
    column("Condition", "What became of it."),
];

/// What a key can be for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The signer that only an older version of this kind knew.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// Least life of a certificate, in seconds.
const SECONDS_MIN: i64 = 600;
/// The first line of a request.
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";

fn validate(request: &Value, causes: &mut Causes) {
    let (spec, path) = (request.field("spec"), Path::new("spec"));
    let bytes = BASE64_STANDARD.decode(spec.text("request")).unwrap_or_default();
    let is_pem = String::from_utf8(bytes).is_ok_and(|it| it.contains(PEM_BEGIN));
    if !is_pem {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        causes.invalid(path.child("request"), spec.field("request"), detail);
    }
    let list = path.child("usages");
    if spec.items("usages").is_empty() {
        causes.required(list, "");
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in spec.items("usages").iter().enumerate() {
        let text = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&text) {
            causes.not_supported(list.index(index), usage, &USAGES);
        }
        if !seen.insert(text) {
            causes.duplicate(list.index(index), usage);
        }
    }
    let signer = spec.text("signerName");
    if signer == LEGACY_SIGNER {
        let detail = "the legacy signerName is not allowed via this API version";
        causes.invalid(path.child("signerName"), &signer.into(), detail);
    } else {
        rules::domain_prefixed_path(signer, path.child("signerName"), causes);
    }
    if spec.int("expirationSeconds").is_some_and(|it| it < SECONDS_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.invalid(path.child("expirationSeconds"), spec.field("expirationSeconds"), detail);
    }
    conditions(request.field("status"), causes);
}

fn conditions(status: &Value, causes: &mut Causes) {
    let path = Path::new("status");
    let list = path.child("conditions");
    let mut seen = BTreeSet::new();
    for (index, condition) in status.items("conditions").iter().enumerate() {
        let path = list.index(index);
        let kind = condition.text("type");
        if kind.is_empty() {
            causes.required(path.child("type"), "");
        }
        let known = matches!(kind, "Approved" | "Denied" | "Failed");
        let allowed: &[&str] = if known { &["True"] } else { &["False", "True", "Unknown"] };
        rules::one_of(condition, "status", allowed, path, causes);
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            causes.invalid(list, &kind.into(), detail);
        }
        if !seen.insert(kind) {
            causes.duplicate(path.child("type"), &kind.into());
        }
    }
}

fn of_type<'a>(request: &'a Value, kind: &str) -> Vec<&'a Value> {
    let conditions = request.field("status").items("conditions").iter();
    conditions.filter(|it| it.text("type") == kind).collect()
}

fn nothing_is_taken_back(new: &Value, old: &Value, causes: &mut Causes) {
    for kind in ["Approved", "Denied", "Failed"] {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            let detail = format!("updates may not remove a condition of type \"{kind}\"");
            causes.forbidden("status.conditions", &detail);
        }
    }
}

fn approval_stays(new: &Value, old: &Value, causes: &mut Causes) {
    for kind in ["Approved", "Denied"] {
        let (before, after) = (of_type(old, kind), of_type(new, kind));
        let detail = match after.len().cmp(&before.len()) {
            std::cmp::Ordering::Greater => {
                format!("updates may not add a condition of type \"{kind}\"")
            }
            std::cmp::Ordering::Equal if before != after => {
                format!("updates may not modify a condition of type \"{kind}\"")
            }
            _ => continue,
        };
        causes.forbidden("status.conditions", &detail);
    }
}

fn row(request: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (request.field("spec"), request.field("status"));
    let has = |kind| !of_type(request, kind).is_empty();
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state += ",Failed";
    }
    if !status.text("certificate").is_empty() {
        state += ",Issued";
    }
    let seconds = spec.int("expirationSeconds");
    vec![
        print::name(request),
        print::age(request, now),
        print::or_none(spec.text("signerName")).into(),
        spec.text("username").into(),
        seconds.map_or_else(|| print::NONE.to_owned(), print::human_duration).into(),
        state.into(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update, created, sample},
        *,
    };

    const CSR: &Kind = &CERTIFICATE_SIGNING_REQUEST;

    #[test]
    fn requests_say_what_for() {
        check(
            CSR,
            json!({"spec": {"request": "eA==", "usages": ["fun", "any", "any"],
                "signerName": "nobody", "expirationSeconds": 5}}),
            expect![[r#"
                spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST
                spec.usages[0]: Unsupported value: "fun": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
                spec.usages[2]: Duplicate value: "any"
                spec.signerName: Invalid value: "nobody": must be a domain-prefixed path (such as "acme.io/foo")
                spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)"#]],
        );
        let legacy = json!({"spec": {"signerName": LEGACY_SIGNER, "usages": null}});
        check(
            CSR,
            legacy,
            expect![[r#"
            spec.usages: Required value
            spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version"#]],
        );
    }

    #[test]
    fn nobody_approves_by_the_way() {
        let approved = json!([{"type": "Approved", "status": "True"}]);
        check_update(CSR, json!({"status": {"conditions": approved}}), expect![""]);
        let old = created(CSR, sample(CSR));
        let mut new = old.clone();
        new["status"] = json!({"conditions": approved, "certificate": "eA=="});
        let mut causes = Causes::default();
        (CSR.validate_update)(&new, &old, &mut causes);
        assert_eq!(
            causes.as_slice().iter().map(|it| it.message.as_str()).collect::<Vec<_>>(),
            ["Forbidden: updates may not add a condition of type \"Approved\""]
        );
        (CSR.prepare_part)(Subresource::Approval, &mut new, &old);
        assert_eq!(new["status"], json!({"conditions": approved}));
        let mut causes = Causes::default();
        (CSR.validate_part)(Subresource::Approval, &old, &new, &mut causes);
        assert_eq!(causes.as_slice().len(), 1);
    }

    #[test]
    fn row_says_what_became_of_it() {
        check_row(CSR, json!({}), expect!["a | 60m | example.com/s |  | <none> | Pending"]);
        let conditions = json!([{"type": "Approved", "status": "True"}]);
        check_row(
            CSR,
            json!({"spec": {"expirationSeconds": 3600, "username": "me"},
                "status": {"conditions": conditions, "certificate": "eA=="}}),
            expect!["a | 60m | example.com/s | me | 60m | Approved,Issued"],
        );
    }
}
