//! The part of a collection that a list or watch is about, as its path says it.

/// Of the collection at `path`, the object called `name`.
pub(crate) fn of_name(path: &str, name: &str) -> String {
    format!("{path}?fieldSelector=metadata.name%3D{}", encoded(name))
}

/// Of the collection at `path`, the objects whose labels `selector` selects.
pub(crate) fn of_labels(path: &str, selector: &str) -> String {
    format!("{path}?labelSelector={}", encoded(selector))
}

/// `text` as a part of a query: whatever a pod refers to, also what is no name.
fn encoded(text: &str) -> String {
    let plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~".contains(&it);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_referred_to_is_one_word_of_a_query() {
        assert_eq!(encoded("my-app.v1_2"), "my-app.v1_2");
        assert_eq!(of_name("/p", "a&b=ü c"), "/p?fieldSelector=metadata.name%3Da%26b%3D%C3%BC%20c");
        assert_eq!(of_labels("/p", "x/a in (b,c)"), "/p?labelSelector=x%2Fa%20in%20%28b%2Cc%29");
    }
}
