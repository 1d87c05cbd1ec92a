//! The hash that names a ReplicaSet after its template.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Letters that form no bad words and are not easily mistaken: `SafeEncodeString` of apimachinery.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The value of the label `pod-template-hash`: FNV-1a of the template as JSON with sorted keys.
///
/// The original hashes a dump of Go's memory layout, which nobody else can compute. That is no
/// loss: a ReplicaSet is recognised by its template, and only named by the hash.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_value(template).map(|it| it.to_string()).unwrap_or_default();
    let collisions = collisions.map(i32::to_le_bytes);
    let mut hash: u32 = 0x811c_9dc5;
    for byte in json.bytes().chain(collisions.into_iter().flatten()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let letter = |byte: u8| ALPHABET.get(usize::from(byte) % ALPHABET.len()).copied();
    hash.to_string().bytes().filter_map(letter).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn depends_on_template_and_collisions() {
        let plain = PodTemplateSpec::default();
        let mut other = plain.clone();
        other.metadata.get_or_insert_default().name = Some("x".to_owned());
        let hashes = [
            template_hash(&plain, None),
            template_hash(&plain, Some(1)),
            template_hash(&other, None),
        ];
        expect!["5859f96865 6746d4fc44 6fd99d8ff"].assert_eq(&hashes.join(" "));
    }
}
